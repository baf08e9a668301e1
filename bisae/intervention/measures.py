"""Measures of an LM, plain or edited: each makes a table, which is kept with the result of the intervention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Protocol, runtime_checkable

import pandas as pd

from bisae.corpus.corpus import Corpus
from bisae.corpus.tokens import CHARACTERS, TokenizedDocument, heads
from bisae.lm.generation import CausalLM
from bisae.lm.losses import DocumentLosses, document_losses
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.translation.prompts import TaskIds
from bisae.translation.scores import Translations, translate

LONGEST = 2**31  # characters read of a document at most where `longest` is null


@runtime_checkable
class Measure(Protocol):
    """Something measured of an LM, as a table."""

    name: ClassVar[str]

    def texts(self) -> int:
        """Number of texts that are read side by side at least."""
        ...

    @property
    def unwritten(self) -> "Measure | None":
        """The part of the measure for which the LM generates no text, or None."""
        ...

    @property
    def made_from(self) -> Mapping[str, Any]:
        """Everything the table depends on beside LM and intervention, as JSON; it names the file."""
        ...

    def of(self, lm: CausalLM) -> pd.DataFrame:
        """Measure `lm`, with the edits that are hooked to it now."""
        ...


def file_name(measure: Measure) -> str:
    return f"{measure.name}-{name_of(measure.made_from)}.parquet"


@dataclass(frozen=True, eq=False)
class PerplexityText:
    """Loss of the LM on documents of a corpus split: a table with one row for each document.

    Attributes:
        batch: documents read at a time.
        split: of the corpus.
        documents: how many of each language; None: all.
        longest: tokens read of a document; None: all.
        context: tokens the LM sees at once, BOS included.
        stride: tokens predicted in each window after a document's first.
        mix: share of each language in the perplexity of `all`; None: by tokens.
        ids: names the token ids where they differ from an earlier version's (`bisae.lm.changed_ids`), else None.
    """

    name: ClassVar[str] = "perplexity"
    corpus: Corpus
    tokenizer: Any
    batch: int
    split: str
    documents: int | None
    longest: int | None
    context: int
    stride: int
    mix: Mapping[str, float] | None
    ids: str | None = None

    def check(self, positions: int | None) -> None:
        """Refuse windows longer than `positions`, which the LM can read, too few documents, and a wrong mix."""
        for field in ("documents", "longest"):
            if (value := getattr(self, field)) is not None and not (isinstance(value, int) and value > 0):
                raise Refused(field, value, "must be null or a whole number above 0")
        if self.mix is not None:
            shares = self.mix.values()
            if set(self.mix) != set(self.corpus.languages) or min(shares) < 0 or not sum(shares):
                remedy = f"must give each of {', '.join(self.corpus.languages)} its share"
                raise Refused("mix", self.mix, remedy)
        if positions is not None and self.context > positions:
            raise Refused("context", self.context, f"the LM can read at most {positions} tokens")
        if not 1 <= self.stride < self.context:
            raise Refused("stride", self.stride, f"must be between 1 and {self.context - 1}")
        self.corpus.checksum(self.split)  # refuses a split that is not there
        for number, language in enumerate(self.corpus.languages):
            available = sum(document.language == number for document in self.sequences)
            if available < (self.documents or 2):
                field = "split" if self.documents is None else "documents"
                raise Refused(field, getattr(self, field), f"the split has {available} documents in {language}")

    def texts(self) -> int:
        spoken = [document.language for document in self.sequences]
        return min(self.batch, *(spoken.count(number) for number in range(len(self.corpus.languages))))

    @property
    def made_from(self) -> Mapping[str, Any]:
        keys = ("split", "documents", "longest", "context", "stride", "batch")
        ids = {"ids": self.ids} if self.ids else {}
        return {"corpus": self.corpus.checksum(self.split), **{key: getattr(self, key) for key in keys}, **ids}

    @property
    def unwritten(self) -> "PerplexityText":
        return self

    @cached_property
    def sequences(self) -> list[TokenizedDocument]:
        """The documents as tokens, without BOS."""
        documents: list[TokenizedDocument] = []
        for language in range(len(self.corpus.languages)):
            longest = self.longest or LONGEST // CHARACTERS
            documents += islice(heads(self.corpus, self.split, language, self.tokenizer, longest, 1), self.documents)
        return documents

    def of(self, lm: CausalLM) -> pd.DataFrame:
        reading = self.tokenizer.bos_token_id, self.context, self.stride, self.batch
        losses = document_losses(lm.model, self.sequences, tuple(self.corpus.languages), *reading)
        return pd.DataFrame({"language": losses.language, "nats": losses.nats, "tokens": losses.tokens})

    def losses(self, table: pd.DataFrame) -> DocumentLosses:
        """The losses in a table made by `of`."""
        columns = (table[name].to_numpy() for name in ("language", "nats", "tokens"))
        return DocumentLosses(tuple(self.corpus.languages), *columns)


@dataclass(frozen=True, eq=False)
class TranslatedTasks:
    """Translation tasks: a table with one row for each example of each task.

    Attributes:
        tasks: as token ids.
        batch: examples read at a time.
        generation: what answers depend on besides the LM's weights (`bisae.lm.generation.generation_identity`).
        answers: False measures only the losses of the references.
    """

    name: ClassVar[str] = "translation"
    tasks: Sequence[TaskIds]
    batch: int
    generation: Mapping[str, Any]
    answers: bool = True

    def texts(self) -> int:
        return min(self.batch, *(len(ids.prompts) for ids in self.tasks))

    @cached_property
    def unwritten(self) -> "TranslatedTasks":
        return replace(self, answers=False)

    @property
    def languages(self) -> list[str]:
        """Source and target language of each task."""
        return [code for ids in self.tasks for code in (ids.task.source_language, ids.task.target_language)]

    @cached_property
    def made_from(self) -> Mapping[str, Any]:
        contents = {
            ids.task.name: [ids.prompts, ids.texts, ids.starts, ids.prompt.stop, ids.task.max_new_tokens]
            for ids in self.tasks
        }
        answers = self.generation if self.answers else {"answers": False}
        return {"tasks": name_of(contents), "batch": self.batch, **answers}

    def of(self, lm: CausalLM) -> pd.DataFrame:
        parts = []
        for ids in self.tasks:
            translations = translate(ids, lm, self.answers)
            columns = {name: getattr(translations, name) for name in ("nats", "tokens", "nats_other")}
            parts.append(pd.DataFrame({"task": ids.task.name, "answer": translations.answers, **columns}))
        return pd.concat(parts, ignore_index=True)

    def translations(self, table: pd.DataFrame) -> list[Translations]:
        """The translations in a table made by `of`, task by task."""
        translations = []
        for ids in self.tasks:
            rows = table[table["task"] == ids.task.name]
            numbers = (rows[name].to_numpy() for name in ("nats", "tokens", "nats_other"))
            translations.append(Translations(ids.task, tuple(rows["answer"]), *numbers))
        return translations


@dataclass(frozen=True)
class ContinuedPrompts:
    """Texts that the LM continues by greedy search: a table with one row for each text.

    Attributes:
        batch: texts continued at a time.
        generation: what answers depend on besides the LM's weights (`bisae.lm.generation.generation_identity`).
        spelled: True if a prompt spells a special token; earlier versions read it as that token, not as text.
    """

    name: ClassVar[str] = "continuation"
    prompts: Sequence[str]
    max_new_tokens: int
    batch: int
    generation: Mapping[str, Any]
    spelled: bool = False

    def texts(self) -> int:
        return min(self.batch, len(self.prompts))

    @property
    def unwritten(self) -> None:
        return None

    @property
    def made_from(self) -> Mapping[str, Any]:
        settings = {"prompts": list(self.prompts), "max_new_tokens": self.max_new_tokens, "batch": self.batch}
        return {**settings, **self.generation, **({"spelled": True} if self.spelled else {})}

    def check(self, tokenizer: Any, positions: int | None) -> None:
        """Refuse prompts whose continuation is longer than `positions`, the longest sequence the LM takes."""
        if not self.prompts:
            return
        rows = tokenizer(list(self.prompts), add_special_tokens=False).input_ids
        longest = max(map(len, rows)) + (tokenizer.bos_token_id is not None)
        if positions is not None and longest + self.max_new_tokens >= positions:
            remedy = f"with prompts of up to {longest} tokens; the LM takes {positions}"
            raise Refused("max_new_tokens", self.max_new_tokens, remedy)

    def of(self, lm: CausalLM) -> pd.DataFrame:
        bos = [] if lm.tokenizer.bos_token_id is None else [lm.tokenizer.bos_token_id]
        ids = [bos + row for row in lm.tokenizer(list(self.prompts), add_special_tokens=False).input_ids]
        return pd.DataFrame({"prompt": self.prompts, "answer": lm.generate(ids, None, self.max_new_tokens)})
