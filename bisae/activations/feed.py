"""Batches of activations: in reading order for training, in order for validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset

from bisae.activations.order import ReadingOrder
from bisae.activations.store import Activations, Rows
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part


@dataclass(frozen=True)
class ActivationBatch:
    """Activations by layer; `language` indexes the corpus' languages, `rows` are the numbers of the rows."""

    activations: dict[int, BFloat16[Tensor, "token d_model"]]
    language: UInt8[Tensor, " token"]
    rows: Int64[Tensor, " token"]

    def to(self, device: torch.device, non_blocking: bool = False) -> "ActivationBatch":
        """Return the batch on another device; Lightning calls this too."""
        activations = {layer: t.to(device, non_blocking=non_blocking) for layer, t in self.activations.items()}
        language, rows = (t.to(device, non_blocking=non_blocking) for t in (self.language, self.rows))
        return ActivationBatch(activations, language, rows)


HELD_OUT_WINDOW = 2**17  # rows


def held_out_window(window: int) -> int:
    """Rows of a window of held-out text where one of training text has `window`: less, since nothing is shuffled."""
    return min(window, HELD_OUT_WINDOW)


@dataclass(frozen=True)
class _Pool:
    key: tuple[int, int]  # epoch, pool
    place: Int64[Tensor, "batch token"]  # of each row in the buffers


class Feed:
    """Gives the batch of any step, or this process's part of it.

    RAM: one pool, that is `pool_batches * batch / world` rows of each layer. Batches can be read in any order: the
    order changes the time that a batch takes, never the batch.
    """

    def __init__(
        self,
        activations: Activations,
        layers: Sequence[int],
        order: ReadingOrder,
        epochs: int,
        part: Part = ALONE,
    ) -> None:
        if order.tokens > activations.tokens:
            raise Refused("tokens", order.tokens, f"there are only {activations.tokens} tokens")
        self.layers = tuple(layers)
        self._activations, self._order, self._epochs, self._part = activations, order, epochs, part
        self._window: tuple[int, int] | None = None  # epoch, number
        self._rows: Rows | None = None
        self._pool: _Pool | None = None
        # Rows of the pool, ascending. Kept from pool to pool: fresh memory triples the time of a load.
        self._buffers: dict[int, BFloat16[Tensor, "row d_model"]] = {}

    def batch(self, epoch: int, step: int) -> ActivationBatch:
        """Return the batch of (epoch, step); its tensors are copies."""
        rows = self._order.rank_rows(epoch, step, *self._part)
        number, batch = divmod(step, self._order.pool_batches)
        window = self._at(epoch, number // self._order.window_pools)
        if self._pool is None or self._pool.key != (epoch, number):
            self._pool = None  # an interrupted load must not leave half of the old pool
            self._pool = self._load(window, epoch, number)
        place = self._pool.place[batch]
        # index_select: indexing by [place] is ten times slower.
        activations = {layer: self._buffers[layer].index_select(0, place) for layer in self.layers}
        return ActivationBatch(activations, torch.from_numpy(window.languages(rows)), torch.from_numpy(rows))

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        """Return the shards of rows of the last batch."""
        return [] if self._rows is None else self._rows.shards_of(rows)

    def _at(self, epoch: int, window: int) -> Rows:
        if self._rows is None or self._window != (epoch, window):
            order, following = self._order, None
            if window + 1 < order.windows:
                following = order.window(window + 1)
            elif epoch + 1 < self._epochs:
                following = order.window(0)

            def wanted() -> Int64[np.ndarray, " token"]:
                pools = (order.pool_rows(epoch, pool, *self._part).reshape(-1) for pool in order.pools(window))
                return np.sort(np.concatenate(list(pools)))

            self._rows = None  # should the change be interrupted
            self._rows = self._activations.window(*order.window(window), wanted, following)
            self._window = epoch, window
        return self._rows

    def _load(self, window: Rows, epoch: int, pool: int) -> _Pool:
        rows = self._order.pool_rows(epoch, pool, *self._part)
        order = np.argsort(rows, axis=None)
        place = np.empty(rows.size, dtype=np.int64)
        place[order] = np.arange(rows.size)
        ascending = rows.reshape(-1)[order]
        for layer in self.layers:
            if layer not in self._buffers or len(self._buffers[layer]) < rows.size:
                self._buffers[layer] = torch.empty(rows.size, self._activations.d_model, dtype=torch.bfloat16)
            window.gather_ascending(layer, ascending, out=self._buffers[layer][: rows.size])
        return _Pool((epoch, pool), torch.from_numpy(place.reshape(rows.shape)))


class HeldOutBatches(IterableDataset[ActivationBatch]):
    """The first `tokens` rows in batches of `size`; under DDP every rank has its share of the batches.

    They are read in windows of at least `window` rows; the last window may be shorter.
    """

    def __init__(
        self,
        activations: Activations,
        layers: Sequence[int],
        tokens: int,
        size: int,
        window: int,
        part: Part = ALONE,
    ) -> None:
        self.activations, self.layers, self.part = activations, layers, part
        batches = [range(start, min(start + size, tokens)) for start in range(0, tokens, size)]
        share = -(-window // size)
        self.windows = [batches[first : first + share] for first in range(0, len(batches), share)]

    def __iter__(self) -> Iterator[ActivationBatch]:
        borders = [(window[0].start, window[-1].stop) for window in self.windows]
        number = 0
        for window, here, following in zip(self.windows, borders, [*borders[1:], None], strict=True):
            mine = [np.array(rows) for batch, rows in enumerate(window, start=number) if self.part.owns(batch)]
            number += len(window)

            def wanted(mine: list[Int64[np.ndarray, " token"]] = mine) -> Int64[np.ndarray, " token"]:
                return np.concatenate([np.empty(0, np.int64), *mine])

            held = self.activations.window(*here, wanted, following)
            for rows in mine:
                activations = {}
                for layer in self.layers:
                    activations[layer] = torch.empty(len(rows), self.activations.d_model, dtype=torch.bfloat16)
                    held.gather_ascending(layer, rows, activations[layer])
                yield ActivationBatch(activations, torch.from_numpy(held.languages(rows)), torch.from_numpy(rows))
