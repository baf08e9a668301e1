"""An LM's tokenizer: the ids are those of tokenizer.json, and text that spells a special token stays text."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused

ROLES = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")  # what byte fallback looks up by name: never renamed
# No text holds these two noncharacters around a word. What is named so is out of reach of a text.
HIDDEN = "\U0010ffffspecial \U0010fffe"


class TextTokenizer:
    """A Hugging Face tokenizer that reads every text as text; all but the methods here are the Hugging Face one's.

    `written`: the Hugging Face tokenizer. `read`: `tokenizers.Tokenizer` by which texts become ids, in which special
    tokens have names that no text spells; None where a tokenizer is written in Python.
    """

    def __init__(self, written: Any, read: Any, special: Collection[str], folder: Path) -> None:
        self.written, self._read, self._folder = written, read, folder
        self.special = tuple(sorted(special, key=len, reverse=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["written"], name)

    def __len__(self) -> int:
        """Ids are below this; some may stand for no token."""
        return self._ids

    @cached_property
    def _ids(self) -> int:
        return max(self.written.get_vocab().values(), default=-1) + 1

    @property
    def has_offsets(self) -> bool:
        """Whether it says which characters a token stands for."""
        return self._read is not None

    def __call__(
        self, text: str | Sequence[str], add_special_tokens: bool = False, return_offsets_mapping: bool = False
    ) -> Any:
        """`input_ids` of a text or of each of several, without BOS or EOS; `offset_mapping`: the characters of each."""
        from transformers import BatchEncoding

        if add_special_tokens:
            raise ValueError("special tokens are added by id: tokenizer.bos_token_id")
        texts = [text] if isinstance(text, str) else list(text)
        found: dict[str, list[Any]]
        if self._read is None:
            if return_offsets_mapping:
                raise Refused("tokenizer", self._folder, "is written in Python: it does not say where its tokens stand")
            encoded = self.written(texts, add_special_tokens=False, split_special_tokens=True)
            found = {"input_ids": self._checked(encoded.input_ids)}
        else:
            encoded = self._read.encode_batch(texts, add_special_tokens=False)
            found = {"input_ids": [one.ids for one in encoded]}
            if return_offsets_mapping:
                found["offset_mapping"] = [one.offsets for one in encoded]
        return BatchEncoding({key: rows[0] for key, rows in found.items()} if isinstance(text, str) else found)

    def as_special(self, text: str) -> str:
        """`text`, where special tokens that it spells are read as such: for a template, never for what is filled in."""
        if self._read is None:
            spelled = next((token for token in self.special if token in text), None)
            if spelled is not None:
                raise Refused("tokenizer", self._folder, f"is written in Python: {spelled!r} would be read as text")
            return text
        return self._spelled.sub(lambda match: hidden(match[0]), text) if self.special else text

    def spells_special(self, texts: Sequence[str]) -> bool:
        """Whether a text spells a special token; its ids then are others than those of `AutoTokenizer`."""
        return any(token in text for text in texts for token in self.special)

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.special)))

    def _checked(self, rows: list[list[int]]) -> list[list[int]]:
        """The ids; Refused where a text has become a special token, which only tokenizers in Python can do."""
        never = set(self.written.all_special_ids) - {self.written.unk_token_id}
        if found := {token for row in rows for token in never.intersection(row)}:
            name = self.written.convert_ids_to_tokens(min(found))
            raise Refused(
                "tokenizer", self._folder, f"reads text as the special token {name!r}; give its tokenizer.json"
            )
        return rows


def hidden(token: str) -> str:
    """The name of a special token that no text spells."""
    return HIDDEN + token


def load_tokenizer(folder: Path, trust_remote_code: bool, embeddings: int | None) -> TextTokenizer:
    """The tokenizer in `folder`, checked against an LM that has so many `embeddings`, None: unknown.

    Refused of `tokenizer` where there is none, it cannot be read, or a text or BOS could get an id that
    the LM has no embedding for.
    """
    tokenizer = _load(folder, trust_remote_code)
    written = tokenizer.written
    readable = {name: number for name, number in written.get_vocab().items() if name not in set(tokenizer.special)}
    if len(readable) < 2:
        raise Refused("tokenizer", folder, "knows no tokens but special ones; give a folder with tokenizer.json")
    if embeddings is not None:
        name, last = max(readable.items(), key=lambda item: item[1])
        remedy = f"while the LM has {embeddings} embeddings; give the tokenizer it was trained with"
        if last >= embeddings:
            raise Refused("tokenizer", folder, f"has ids up to {last} ({name!r}), {remedy}")
        if written.bos_token_id is not None and written.bos_token_id >= embeddings:
            raise Refused(
                "tokenizer", folder, f"its BOS {written.bos_token!r} has the id {written.bos_token_id}, {remedy}"
            )
        if written.pad_token_id is not None and written.pad_token_id >= embeddings:
            written.pad_token = None  # added for batches, and never trained: not to be read by the LM
    return tokenizer


def of_transformers(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer as transformers builds it, which may ignore tokenizer.json."""
    from transformers import AutoTokenizer  # slow to import, and a finished job needs none

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def _load(folder: Path, trust_remote_code: bool) -> TextTokenizer:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    there = file.is_file()
    try:
        named = of_transformers(folder, trust_remote_code)
    except Exception as error:  # transformers raises anything
        if not there:
            remedy = "holds no tokenizer that can be read; give a folder or repository with tokenizer.json"
            raise Refused("tokenizer", folder, f"{remedy} ({_line(error)})") from error
        named = None
    try:
        if there:
            described = json.loads(file.read_bytes())
            backend = tokenizers.Tokenizer.from_str(json.dumps(described))
            backend.no_truncation()
            backend.no_padding()  # else its pad token gets an id of its own
            known = backend.get_vocab()
            if named is None:
                named = PreTrainedTokenizerFast.from_pretrained(folder)
            written = PreTrainedTokenizerFast(tokenizer_object=backend, **_names(named, known))
            _check_added(named, known, folder)
        else:
            _check_files(named, folder, trust_remote_code)
            written = named
            described = json.loads(named.backend_tokenizer.to_str()) if named.is_fast else None
    except Refused:
        raise
    except Exception as error:  # a plain Exception is what tokenizers raises
        raise Refused("tokenizer", file, f"cannot be read: {_line(error)}") from error
    special = set(written.all_special_tokens)
    if described is None:
        return TextTokenizer(written, None, special, folder)
    special |= {token["content"] for token in described.get("added_tokens") or [] if token["special"]}
    read = tokenizers.Tokenizer.from_str(json.dumps(out_of_reach(described, special)))
    return TextTokenizer(written, read, special, folder)


def out_of_reach(described: Mapping[str, Any], special: Collection[str]) -> dict[str, Any]:
    """A tokenizer.json whose `special` tokens have `hidden` names: their ids stay, and no text spells them."""
    model = dict(described["model"])
    vocabulary = model["vocab"]
    listed = isinstance(vocabulary, list)  # Unigram: pieces with their scores
    known = {piece for piece, _ in vocabulary} if listed else set(vocabulary)
    kept = {token for token in special if BYTE.fullmatch(token) and token in known}

    def name(token: str) -> str:
        return hidden(token) if token in special and token not in kept else token

    if listed:
        model["vocab"] = [[name(piece), score] for piece, score in vocabulary]
    else:
        model["vocab"] = {name(piece): number for piece, number in vocabulary.items()}
    if model.get("unk_token") is not None:
        model["unk_token"] = name(model["unk_token"])
    if model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if not _makes(merge, special)]
    if model.get("dropout"):
        model["dropout"] = None  # noise for training: the same text would have other ids each time
    added = [
        {**token, "content": name(token["content"])}
        for token in described.get("added_tokens") or []
        if token["content"] not in kept
    ]
    return {**described, "model": model, "added_tokens": added, "truncation": None, "padding": None}


def _makes(merge: str | Sequence[str], special: Collection[str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left + right in special or left in special or right in special


def _names(named: Any, known: Mapping[str, int]) -> dict[str, Any]:
    """The special tokens by their role, as far as tokenizer.json has them: others would get ids of no embedding."""
    roles = {role: getattr(named, role) for role in ROLES}
    kept = {role: str(token) for role, token in roles.items() if token is not None and str(token) in known}
    others = {str(token) for token in named.all_special_tokens} & set(known) - set(kept.values())
    tidy = bool(getattr(named, "clean_up_tokenization_spaces", False))
    return {**kept, "extra_special_tokens": sorted(others), "clean_up_tokenization_spaces": tidy}


def _check_added(named: Any, known: Mapping[str, int], folder: Path) -> None:
    """Refused for tokens of a text that added_tokens.json or tokenizer_config.json adds to tokenizer.json."""
    special = set(named.all_special_tokens)
    lacking = [
        token.content
        for token in named.added_tokens_decoder.values()
        if not token.special and token.content not in special and token.content not in known
    ]
    if lacking:
        remedy = f"its tokenizer.json lacks the added token {lacking[0]!r} of its other files; save the tokenizer again"
        raise Refused("tokenizer", folder, remedy)


def _check_files(named: Any, folder: Path, trust_remote_code: bool) -> None:
    """Refused where transformers has made a tokenizer from nothing: of some classes it makes empty ones."""
    other = [*folder.glob("tekken.json"), *folder.glob("*tiktoken*")]
    needed = [name for role, name in named.vocab_files_names.items() if role != "tokenizer_file"]
    lacking = [name for name in needed if not (folder / name).is_file()]
    if lacking and not other and not trust_remote_code:
        raise Refused("tokenizer", folder, f"holds no tokenizer.json, and no {' and '.join(lacking)} in place of it")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
