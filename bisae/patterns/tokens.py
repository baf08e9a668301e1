"""The tokens of a text that is analysed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int16, Int32, Int64, UInt8

from bisae.activations.source import Source, TokenShard, too_few
from bisae.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Tokens:
    """Columns of the first tokens of a source: whole sequences, in reading order.

    `language` indexes the corpus' languages; `position` counts from 0, the first token after BOS.
    """

    token_ids: Int32[np.ndarray, " token"]
    language: UInt8[np.ndarray, " token"]
    document: Int32[np.ndarray, " token"]
    position: Int16[np.ndarray, " token"]

    @classmethod
    def read(cls, source: Source, tokens: int | None, key: str, take_short: bool = False) -> "Tokens":
        """At most `tokens` of them, up to the end of a sequence; None for all there are. Runs no LM.

        ConfigError naming config key `key` if the source holds fewer; with `take_short` only if it holds none.
        """
        shards, held = [], 0
        for shard in _shards(source):
            shards.append(shard)
            held += shard.tokens
            if tokens is not None and held >= tokens:
                break
        if tokens is not None and held < tokens and not (take_short and held):
            raise too_few(key, tokens, held, source)
        columns = [np.concatenate([getattr(shard, name) for shard in shards]) for name in cls.__dataclass_fields__]
        everything = cls(*columns)
        if tokens is None or tokens >= held:
            return everything
        stop = int(everything.borders[np.searchsorted(everything.borders, tokens, side="right") - 1])
        if not stop:
            raise ConfigError(key, tokens, f"is less than the first sequence, of {everything.borders[1]} tokens")
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
        """1 + the token before each, 0 at the beginning of a sequence."""
        before = np.roll(self.token_ids, 1) + np.int32(1)
        before[self.position == 0] = 0
        return before

    @cached_property
    def following(self) -> Int32[np.ndarray, " token"]:
        """1 + the token after each, 0 at the end of a sequence."""
        after = np.roll(self.token_ids, -1) + np.int32(1)
        after[self.borders[1:] - 1] = 0
        return after


def _shards(source: Source) -> Iterator[TokenShard]:
    number = 0
    while (shard := source.tokens(number)) is not None:
        yield shard
        number += 1
