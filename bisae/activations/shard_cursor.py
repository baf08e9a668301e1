"""Walk through the shards of a source; shards are forgotten once passed."""

from typing import NamedTuple

from bisae.activations.store import Progress, Source, TokenShard, too_few
from bisae.runtime.errors import Refused


class PlacedShard(NamedTuple):
    """Shard `number` covers the rows first ... first + tokens.tokens - 1 of the token stream."""

    number: int
    first: int
    tokens: TokenShard

    @property
    def after(self) -> int:
        return self.first + self.tokens.tokens


class ShardCursor:
    """Finds the shards of row ranges without running the LM. Ranges should ascend: going back starts from shard 0."""

    def __init__(self, source: Source, asked: int) -> None:
        """`asked` is the number of tokens requested, for the message if the split is too short."""
        self._source, self._asked = source, asked
        self._kept: list[PlacedShard] = []
        self._next = (0, 0)  # number and first row of the shard after those kept

    def covering(self, start: int, stop: int) -> list[PlacedShard]:
        """Return the shards of the rows start ... stop - 1, and forget those before.

        Raises Refused (`tokens`) if the split ends earlier.
        """
        if start < (self._kept[0].first if self._kept else self._next[1]):
            self._kept, self._next = [], (0, 0)
        while True:
            while self._kept and self._kept[0].after <= start:
                self._source.forget(self._kept.pop(0).number)
            if self._kept and self._kept[-1].after >= stop:
                return [shard for shard in self._kept if shard.first < stop]
            number, first = self._next
            tokens = self._source.tokens(number)
            if tokens is None:
                raise too_few("tokens", self._asked, first, self._source)
            self._kept.append(PlacedShard(number, first, tokens))
            self._next = number + 1, first + tokens.tokens


def check_split(
    source: Source, tokens: int, field: str, progress: Progress, take_short: bool = False
) -> tuple[int, int]:
    """Count the tokens of a split, up to `tokens`; runs no LM.

    Returns:
        The number of tokens, and the number of tokens of the largest shard.

    Raises:
        Refused: the split holds fewer than `tokens` tokens; the message names `field`. With `take_short` a short split
        is accepted, and only an empty one is refused.
    """
    if tokens < 1:
        raise Refused(field, tokens, "must be at least 1")
    held = number = largest = 0
    while held < tokens:
        shard = source.tokens(number)
        if shard is None:
            if take_short and held:
                break
            raise too_few(field, tokens, held, source)
        source.forget(number)
        held, number, largest = held + shard.tokens, number + 1, max(largest, shard.tokens)
        progress(min(held, tokens), tokens)
    return min(held, tokens), largest
