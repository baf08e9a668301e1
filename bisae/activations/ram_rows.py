"""Rows of windows in RAM, where the memory of rows that are done goes to rows of the window that follows."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor

from bisae.activations.shard_cursor import PlacedShard


class RowStock:
    """Memory for rows of some layers; a row has the same slot in each."""

    def __init__(self, layers: Sequence[int], d_model: int) -> None:
        self.values = {layer: torch.empty(0, d_model, dtype=torch.bfloat16) for layer in layers}
        self._d_model = d_model
        self._stack = np.empty(0, np.int64)  # free slots below `_free`, the lowest last: pages above are never touched
        self._free = 0
        self.most = 0  # slots in use at once, at most

    @property
    def _used(self) -> int:
        return len(self._stack) - self._free

    def reserve(self, rows: int) -> None:
        """Have room for so many rows in all. Memory that no row was put in costs only addresses."""
        old = len(self._stack)
        if rows <= old:
            return
        for layer, values in self.values.items():
            self.values[layer] = torch.empty(0, self._d_model, dtype=torch.bfloat16)
            wider = torch.empty(rows, self._d_model, dtype=torch.bfloat16)
            if self._used:
                wider[:old] = values
            del values
            self.values[layer] = wider
        free = self._stack[: self._free]
        self._stack, self._free = np.empty(rows, np.int64), rows - self._used
        self._stack[: self._free] = np.concatenate([np.arange(rows - 1, old - 1, -1), free])

    def take(self, rows: int) -> Int64[np.ndarray, " slot"]:
        """Return free slots."""
        self.reserve(self._used + rows)
        self._free -= rows
        self.most = max(self.most, self._used)
        return self._stack[self._free : self._free + rows].copy()

    def clear(self) -> None:
        """Take all slots back."""
        self._stack, self._free = np.arange(len(self._stack) - 1, -1, -1), len(self._stack)

    def give(self, slots: Int64[np.ndarray, " slot"]) -> None:
        """Take slots back."""
        self._stack[self._free : self._free + len(slots)] = slots
        self._free += len(slots)


class KeptRows:
    """The rows of the window `start` ... `stop` - 1 that this process reads; shards are put in one after the other.

    Attributes:
        left: The shards that are still to be put in; None as long as the text of the window was not read.
    """

    def __init__(self, start: int, stop: int, rows: Int64[np.ndarray, " token"], stock: RowStock) -> None:
        self.start, self.stop, self.rows = start, stop, rows
        self.left: list[PlacedShard] | None = None
        self._stock = stock
        self._slots = np.full(len(rows), -1)
        self._language = np.empty(len(rows), np.uint8)
        self._shards: list[tuple[int, int]] = []  # first row, number

    def is_for(self, start: int, stop: int, rows: Int64[np.ndarray, " token"]) -> bool:
        """Whether it holds, or will hold, just these rows."""
        return (start, stop) == (self.start, self.stop) and np.array_equal(rows, self.rows)

    def begin(self, shard: PlacedShard) -> None:
        """Make room for the rows of a shard, whose values are put in layer by layer."""
        some, inside = self._of(shard)
        self._slots[some] = self._stock.take(len(inside))
        self._language[some] = shard.tokens.language[inside]
        self._shards.append((shard.first, shard.number))

    def put(self, shard: PlacedShard, layer: int, values: BFloat16[Tensor, "token d_model"], skipped: int = 0) -> None:
        """Put in the values of a shard, of which the first `skipped` rows are left out."""
        some, inside = self._of(shard)
        slots = torch.from_numpy(self._slots[some])
        self._stock.values[layer].index_copy_(0, slots, values.index_select(0, torch.from_numpy(inside - skipped)))

    def _of(self, shard: PlacedShard) -> tuple[slice, Int64[np.ndarray, " row"]]:
        """Where its rows are among `rows`, and which of its rows these are."""
        low, high = np.searchsorted(self.rows, (shard.first, shard.after))
        return slice(low, high), self.rows[low:high] - shard.first

    def forget(self, rows: Int64[np.ndarray, " token"] | None = None) -> None:
        """Give the memory of these rows back, or of all; raise IndexError for them from now on."""
        place = slice(None) if rows is None else self._place(rows)
        slots = self._slots[place]
        self._stock.give(slots[slots >= 0])
        self._slots[place] = -1

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        """Copy `rows` into `out`; they may be in any order."""
        slots = torch.from_numpy(self._slots[self._place(rows)])
        torch.index_select(self._stock.values[layer], 0, slots, out=out)

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return self._language[self._place(rows)]

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        first, numbers = (np.array(column) for column in zip(*self._shards, strict=True))
        shards: list[int] = numbers[np.unique(np.searchsorted(first, rows, side="right") - 1)].tolist()
        return shards

    def _place(self, rows: Int64[np.ndarray, " token"]) -> Int64[np.ndarray, " token"]:
        place = np.searchsorted(self.rows, rows)
        here = place.max(initial=-1) < len(self.rows) and np.array_equal(self.rows[place], rows)
        if not here or self._slots[place].min(initial=0) < 0:
            raise IndexError("rows that were not asked for with the window, that are done, or of a window gone by")
        return place
