"""What is measured of an LM, plain or changed: each measure gives a table, kept with the intervention it is of."""

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

LONGEST = 2**31  # characters of a document, where none are to be left out


@runtime_checkable
class Measure(Protocol):
    """`made_from` is everything its table depends on beside the LM and the intervention, as JSON; `texts()`: how
    many are read side by side at least; `unwritten`: what is left of it where the LM is to write nothing."""

    name: ClassVar[str]

    def texts(self) -> int: ...

    @property
    def unwritten(self) -> "Measure | None": ...

    @property
    def made_from(self) -> Mapping[str, Any]: ...

    def of(self, lm: CausalLM) -> pd.DataFrame: ...


def file_name(measure: Measure) -> str:
    return f"{measure.name}-{name_of(measure.made_from)}.parquet"


@dataclass(frozen=True, eq=False)
class PerplexityText:
    """Documents of a corpus split whose tokens are predicted: a table with a row a document.

    `ids`: see `bisae.lm.changed_ids`.
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
        """Refused for windows that the LM cannot read, too few documents, or a mix of other languages."""
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
            found = sum(document.language == number for document in self.sequences)
            if found < (self.documents or 2):
                field = "split" if self.documents is None else "documents"
                raise Refused(field, getattr(self, field), f"the split has {found} documents in {language}")

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
        found: list[TokenizedDocument] = []
        for language in range(len(self.corpus.languages)):
            longest = self.longest or LONGEST // CHARACTERS
            found += islice(heads(self.corpus, self.split, language, self.tokenizer, longest, 1), self.documents)
        return found

    def of(self, lm: CausalLM) -> pd.DataFrame:
        reading = self.tokenizer.bos_token_id, self.context, self.stride, self.batch
        losses = document_losses(lm.model, self.sequences, tuple(self.corpus.languages), *reading)
        return pd.DataFrame({"language": losses.language, "nats": losses.nats, "tokens": losses.tokens})

    def losses(self, table: pd.DataFrame) -> DocumentLosses:
        """What `of` has measured."""
        columns = (table[name].to_numpy() for name in ("language", "nats", "tokens"))
        return DocumentLosses(tuple(self.corpus.languages), *columns)


@dataclass(frozen=True, eq=False)
class TranslatedTasks:
    """Translation tasks: a table with a row an example of each. Without `answers` the losses only.

    `generation`: see `generation_identity`.
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
        """Translated from or into."""
        return [one for ids in self.tasks for one in (ids.task.source_language, ids.task.target_language)]

    @cached_property
    def made_from(self) -> Mapping[str, Any]:
        about = {
            one.task.name: [one.prompts, one.texts, one.starts, one.prompt.stop, one.task.max_new_tokens]
            for one in self.tasks
        }
        answers = self.generation if self.answers else {"answers": False}
        return {"tasks": name_of(about), "batch": self.batch, **answers}

    def of(self, lm: CausalLM) -> pd.DataFrame:
        parts = []
        for ids in self.tasks:
            made = translate(ids, lm, self.answers)
            columns = {name: getattr(made, name) for name in ("nats", "tokens", "nats_other")}
            parts.append(pd.DataFrame({"task": ids.task.name, "answer": made.answers, **columns}))
        return pd.concat(parts, ignore_index=True)

    def translations(self, table: pd.DataFrame) -> list[Translations]:
        """What `of` has measured, by task."""
        made = []
        for ids in self.tasks:
            mine = table[table["task"] == ids.task.name]
            numbers = (mine[name].to_numpy() for name in ("nats", "tokens", "nats_other"))
            made.append(Translations(ids.task, tuple(mine["answer"]), *numbers))
        return made


@dataclass(frozen=True)
class ContinuedPrompts:
    """Texts that are continued, greedily: a table with a row a text. `generation`: see `generation_identity`.

    `spelled`: whether one spells a special token, which earlier versions did not read as text.
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
        about = {"prompts": list(self.prompts), "max_new_tokens": self.max_new_tokens, "batch": self.batch}
        return {**about, **self.generation, **({"spelled": True} if self.spelled else {})}

    def check(self, tokenizer: Any, positions: int | None) -> None:
        """Refused for texts that the LM cannot continue."""
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
