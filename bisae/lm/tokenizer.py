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
    """A Hugging Face tokenizer for which text that spells a special token stays text.

    All attributes but the methods here are those of the Hugging Face tokenizer.

    Args:
        written: The Hugging Face tokenizer.
        read: The `tokenizers.Tokenizer` that turns text into ids. Its special tokens have names that no text spells.
            None for a tokenizer that is written in Python.
        special: The special tokens as they are spelled.
        folder: Folder of the tokenizer.
    """

    def __init__(self, written: Any, read: Any, special: Collection[str], folder: Path) -> None:
        self.written, self.folder, self._read = written, folder, read
        self.special = tuple(sorted(special, key=len, reverse=True))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["written"], name)

    def __len__(self) -> int:
        """Largest id plus one; some ids below may stand for no token."""
        return self._ids

    @cached_property
    def _ids(self) -> int:
        return max(self.written.get_vocab().values(), default=-1) + 1

    @property
    def has_offsets(self) -> bool:
        """True if the tokenizer can tell which characters a token stands for."""
        return self._read is not None

    def __call__(
        self, text: str | Sequence[str], add_special_tokens: bool = False, return_offsets_mapping: bool = False
    ) -> Any:
        """Tokenize one text or a list of texts, without BOS and EOS.

        Returns:
            `input_ids` and, if asked for, `offset_mapping`: the first and last character of each token.

        Raises:
            Refused: `tokenizer` is written in Python and cannot tell offsets, or reads text as a special token.
        """
        from transformers import BatchEncoding

        if add_special_tokens:
            raise ValueError("special tokens are added by id: tokenizer.bos_token_id")
        texts = [text] if isinstance(text, str) else list(text)
        encoding: dict[str, list[Any]]
        if self._read is None:
            if return_offsets_mapping:
                raise Refused("tokenizer", self.folder, "is written in Python: it does not say where its tokens stand")
            encoded = self.written(texts, add_special_tokens=False, split_special_tokens=True)
            encoding = {"input_ids": self._checked(encoded.input_ids)}
        else:
            encoded = self._read.encode_batch(texts, add_special_tokens=False)
            encoding = {"input_ids": [text_encoding.ids for text_encoding in encoded]}
            if return_offsets_mapping:
                encoding["offset_mapping"] = [text_encoding.offsets for text_encoding in encoded]
        return BatchEncoding({key: rows[0] for key, rows in encoding.items()} if isinstance(text, str) else encoding)

    def as_special(self, text: str) -> str:
        """Return `text` so that the special tokens it spells are read as special tokens.

        For templates only, never for the text that is filled in.
        """
        if self._read is None:
            spelled = next((token for token in self.special if token in text), None)
            if spelled is not None:
                raise Refused("tokenizer", self.folder, f"is written in Python: {spelled!r} would be read as text")
            return text
        return self._spelled.sub(lambda match: hidden(match[0]), text) if self.special else text

    def spells_special(self, texts: Sequence[str]) -> bool:
        """True if a text spells a special token: its ids then differ from those of `AutoTokenizer`."""
        return any(token in text for text in texts for token in self.special)

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.special)))

    def _checked(self, rows: list[list[int]]) -> list[list[int]]:
        """Return the ids. Raises Refused if a text became a special token; only tokenizers in Python do that."""
        never = set(self.written.all_special_ids) - {self.written.unk_token_id}
        if found := {token for row in rows for token in never.intersection(row)}:
            name = self.written.convert_ids_to_tokens(min(found))
            raise Refused(
                "tokenizer", self.folder, f"reads text as the special token {name!r}; give its tokenizer.json"
            )
        return rows


def hidden(token: str) -> str:
    """Return a name for a special token that no text spells."""
    return HIDDEN + token


def load_tokenizer(folder: Path, trust_remote_code: bool, embeddings: int | None) -> TextTokenizer:
    """Load the tokenizer in `folder` and check it against the LM.

    Args:
        trust_remote_code: Allow a tokenizer that is Python code in the folder.
        embeddings: Number of the LM's embeddings; None if it is not known.

    Raises:
        Refused: `tokenizer` is not there, cannot be read, or gives ids that the LM has no embedding for.
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
    """Build the tokenizer with transformers, which may ignore tokenizer.json."""
    from transformers import AutoTokenizer  # slow to import, and a finished job needs none

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)


def _load(folder: Path, trust_remote_code: bool) -> TextTokenizer:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    file = folder / "tokenizer.json"
    has_file = file.is_file()
    try:
        named = of_transformers(folder, trust_remote_code)
    except Exception as error:  # transformers raises anything
        if not has_file:
            remedy = "holds no tokenizer that can be read; give a folder or repository with tokenizer.json"
            raise Refused("tokenizer", folder, f"{remedy} ({_line(error)})") from error
        named = None
    try:
        if has_file:
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
    """Return a tokenizer.json whose `special` tokens have `hidden` names: same ids, but no text spells them."""
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
    """Return the special tokens by role. Tokens that tokenizer.json lacks are left out: they would get new ids."""
    roles = {role: getattr(named, role) for role in ROLES}
    kept = {role: str(token) for role, token in roles.items() if token is not None and str(token) in known}
    others = {str(token) for token in named.all_special_tokens} & set(known) - set(kept.values())
    tidy = bool(getattr(named, "clean_up_tokenization_spaces", False))
    return {**kept, "extra_special_tokens": sorted(others), "clean_up_tokenization_spaces": tidy}


def _check_added(named: Any, known: Mapping[str, int], folder: Path) -> None:
    """Refuse ordinary tokens that added_tokens.json or tokenizer_config.json adds to tokenizer.json."""
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
    """Refuse an empty tokenizer: for some classes transformers makes one when all files are missing."""
    other = [*folder.glob("tekken.json"), *folder.glob("*tiktoken*")]
    needed = [name for role, name in named.vocab_files_names.items() if role != "tokenizer_file"]
    lacking = [name for name in needed if not (folder / name).is_file()]
    if lacking and not other and not trust_remote_code:
        raise Refused("tokenizer", folder, f"holds no tokenizer.json, and no {' and '.join(lacking)} in place of it")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
