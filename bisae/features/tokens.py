"""The tokens of an analysed text, and the text that they stand for."""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from jaxtyping import Int16, Int32, Int64, UInt8

from bisae.activations.store import Source, TokenShard, too_few
from bisae.runtime.errors import Refused


@dataclass(frozen=True, eq=False)
class Tokens:
    """The first tokens of a source, as columns: whole sequences, in reading order.

    `language` indexes the corpus' languages; `position` counts from 0, the first token after BOS.
    """

    token_ids: Int32[np.ndarray, " token"]
    language: UInt8[np.ndarray, " token"]
    document: Int32[np.ndarray, " token"]
    position: Int16[np.ndarray, " token"]

    @classmethod
    def read(cls, source: Source, tokens: int | None, take_short: bool = False) -> "Tokens":
        """Read whole sequences from `source`, together at most `tokens` tokens (None: all). Runs no LM.

        Raises:
            Refused: the source holds fewer than `tokens` (with `take_short`: none at all), or its first sequence is
                longer than that.
        """
        shards, held = [], 0
        for shard in _shards(source):
            shards.append(shard)
            held += shard.tokens
            if tokens is not None and held >= tokens:
                break
        if tokens is not None and held < tokens and not (take_short and held):
            raise too_few("tokens", tokens, held, source)
        columns = [np.concatenate([getattr(shard, name) for shard in shards]) for name in cls.__dataclass_fields__]
        everything = cls(*columns)
        if tokens is None or tokens >= held:
            return everything
        stop = int(everything.borders[np.searchsorted(everything.borders, tokens, side="right") - 1])
        if not stop:
            raise Refused("tokens", tokens, f"is less than the first sequence, of {everything.borders[1]} tokens")
        return cls(*(column[:stop] for column in columns))

    def __len__(self) -> int:
        return len(self.token_ids)

    @cached_property
    def borders(self) -> Int64[np.ndarray, " sequence_and_one"]:
        """The first row of each sequence, and the row after the last."""
        return np.append(np.flatnonzero(self.position == 0), len(self))

    @cached_property
    def sequence(self) -> Int32[np.ndarray, " token"]:
        """The sequence each token is in, counted from 0."""
        return np.cumsum(self.position == 0, dtype=np.int32) - np.int32(1)

    @cached_property
    def previous(self) -> Int32[np.ndarray, " token"]:
        """1 + the id of the token before each token, 0 at the beginning of a sequence."""
        before = np.roll(self.token_ids, 1) + np.int32(1)
        before[self.position == 0] = 0
        return before

    @cached_property
    def following(self) -> Int32[np.ndarray, " token"]:
        """1 + the id of the token after each token, 0 at the end of a sequence."""
        after = np.roll(self.token_ids, -1) + np.int32(1)
        after[self.borders[1:] - 1] = 0
        return after


def _shards(source: Source) -> Iterator[TokenShard]:
    number = 0
    while (shard := source.tokens(number)) is not None:
        yield shard
        number += 1


SPACES = {"▁": " "}  # SentencePiece's space mark


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The readable text of each token of a whole sequence; joined they are its text.

    A character of several tokens (byte fallback, or byte-level BPE in the middle of a character) is given to the last
    of them, the others are empty; bytes that are no character become U+FFFD.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return _decoded(tokenizer, ids)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    byte_level = _byte_level(tokenizer)
    texts = [decoder.decode(_bytes(token or "", byte_level)) for token in tokens]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts


def token_texts(tokenizer: Any) -> list[str]:
    """The text of every vocabulary item, as the v1 code shows it: a space for a space mark, `<0x0A>` for a byte.

    An id without a token has an empty text.
    """
    ids = list(range(len(tokenizer)))
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return [tokenizer.decode([number]) or "\ufffd" for number in ids]
    tokens: Iterable[str] = (token or "" for token in tokenizer.convert_ids_to_tokens(ids))
    if _byte_level(tokenizer):
        return [_bytes(token, True).decode("utf-8", "replace") for token in tokens]
    return [token.replace("▁", " ") for token in tokens]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """`pieces` for a tokenizer written in Python: the text that each token adds."""
    texts, start, here = [], 0, 0  # decoded from the character before the last, since a text may lose its first space
    for end in range(1, len(ids) + 1):
        known, text = tokenizer.decode(ids[start:here]), tokenizer.decode(ids[start:end])
        whole = len(text) > len(known) and not text.endswith("\ufffd")
        texts.append(text[len(known) :] if whole or (end == len(ids) and text) else "")
        if whole:
            start, here = here, end
    return texts


def _byte_level(tokenizer: Any) -> bool:
    """True if the vocabulary is spelled in GPT-2's alphabet of bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in f"{backend.pre_tokenizer} {backend.decoder}"


def _bytes(token: str, byte_level: bool) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    if byte_level and all(character in _alphabet() for character in token):
        return bytes(_alphabet()[character] for character in token)
    for mark, space in SPACES.items():
        token = token.replace(mark, space)
    return token.encode()


@cache
def _alphabet() -> dict[str, int]:
    """GPT-2's alphabet of bytes: printable ones stand for themselves, the others are U+0100, U+0101, ... in order."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
