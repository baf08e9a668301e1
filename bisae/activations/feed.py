"""Batches of activations: in reading order for training, in order for validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor
from torch.utils.data import IterableDataset

from bisae.activations.order import ReadingOrder
from bisae.activations.store import Activations, Rows, RowWindow
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part


@dataclass(frozen=True)
class ActivationBatch:
    """Activations by layer; `language` indexes the corpus' languages, `rows` are the numbers of the rows.

    `shards_of` returns the shards that some of these rows lie in: where to look when their values are wrong.
    """

    activations: dict[int, BFloat16[Tensor, "token d_model"]]
    language: UInt8[Tensor, " token"]
    rows: Int64[Tensor, " token"]
    shards_of: Callable[[Int64[np.ndarray, " token"]], list[int]]

    @property
    def tensors(self) -> list[Tensor]:
        return [*self.activations.values(), self.language, self.rows]

    def to(self, device: torch.device, non_blocking: bool = False) -> "ActivationBatch":
        """Return the batch on another device; Lightning calls this too."""
        activations = {layer: t.to(device, non_blocking=non_blocking) for layer, t in self.activations.items()}
        language, rows = (t.to(device, non_blocking=non_blocking) for t in (self.language, self.rows))
        return ActivationBatch(activations, language, rows, self.shards_of)


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

    RAM: one pool, that is `pool_batches * batch / world` rows of each layer, unless the activations are in RAM. Batches
    can be read in any order: the order changes the time that a batch takes, never the batch. With `pinned` a batch lies
    in page-locked memory, from which a GPU copies it while it computes.
    """

    def __init__(
        self,
        activations: Activations,
        layers: Sequence[int],
        order: ReadingOrder,
        epochs: int,
        part: Part = ALONE,
        pinned: bool = False,
    ) -> None:
        if order.tokens > activations.tokens:
            raise Refused("tokens", order.tokens, f"there are only {activations.tokens} tokens")
        self.layers = tuple(layers)
        self._activations, self._order, self._epochs, self._part = activations, order, epochs, part
        self._pinned = pinned
        self._window: tuple[int, int] | None = None  # epoch, number
        self._step = 0  # of the last batch
        self._rows: Rows | None = None
        self._pool: _Pool | None = None
        # Rows of the pool, ascending. Kept from pool to pool: fresh memory triples the time of a load.
        self._buffers: dict[int, BFloat16[Tensor, "row d_model"]] = {}

    def batch(self, epoch: int, step: int) -> ActivationBatch:
        """Return the batch of (epoch, step); its tensors are copies."""
        rows = self._order.rank_rows(epoch, step, *self._part)
        window = self._at(epoch, step)
        number, batch = divmod(step, self._order.pool_batches)
        if not self._activations.in_ram and (self._pool is None or self._pool.key != (epoch, number)):
            self._pool = None  # an interrupted load must not leave half of the old pool
            self._pool = self._load(window, epoch, number)
        activations = {}
        for layer in self.layers:
            out = torch.empty(len(rows), self._activations.d_model, dtype=torch.bfloat16, pin_memory=self._pinned)
            if self._pool is None:
                window.gather_ascending(layer, rows, out)
            else:  # index_select: indexing by [place] is ten times slower
                torch.index_select(self._buffers[layer], 0, self._pool.place[batch], out=out)
            activations[layer] = out
        language = torch.from_numpy(window.languages(rows))
        return ActivationBatch(activations, language, torch.from_numpy(rows), window.shards_of)

    def _at(self, epoch: int, step: int) -> Rows:
        """The window of a step; of the steps before it in the window nothing is read again."""
        order, activations = self._order, self._activations
        a_window = order.window_pools * order.pool_batches
        number = step // a_window
        known = self._rows is not None and self._window == (epoch, number)
        if not known or (activations.in_ram and step < self._step):
            following = None
            if number + 1 < order.windows:
                following = self._part_of(epoch, number + 1)
            elif epoch + 1 < self._epochs:
                following = self._part_of(epoch + 1, 0)
            first = step % a_window if activations.in_ram else 0
            self._rows = None  # should the change be interrupted
            self._rows = activations.window(*self._part_of(epoch, number, first), following)
            self._window = epoch, number
        elif activations.in_ram:
            for passed in range(self._step, step):
                rows = order.rank_rows(epoch, passed, *self._part)
                activations.done(rows, (passed + 1 - number * a_window) * order.batch)
        self._step = step
        assert self._rows is not None
        return self._rows

    def _part_of(self, epoch: int, number: int, first: int = 0) -> RowWindow:
        """A window, and which of its rows this process reads, from the window's batch `first` on."""
        order = self._order

        def wanted() -> Int64[np.ndarray, " token"]:
            pools = [order.pool_rows(epoch, pool, *self._part) for pool in order.pools(number)]
            return np.sort(np.concatenate(pools)[first:], axis=None)

        return RowWindow(*order.window(number), wanted)

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
        pinned: bool = False,
    ) -> None:
        self.activations, self.layers, self.part, self.pinned = activations, layers, part, pinned
        batches = [range(start, min(start + size, tokens)) for start in range(0, tokens, size)]
        share = -(-window // size)
        self.windows = [batches[first : first + share] for first in range(0, len(batches), share)]

    def __iter__(self) -> Iterator[ActivationBatch]:
        parts, number = list[tuple[RowWindow, list[tuple[Int64[np.ndarray, " token"], int]]]](), 0
        for batches in self.windows:
            start, turns = batches[0].start, list[tuple[Int64[np.ndarray, " token"], int]]()
            for first in range(0, len(batches), self.part.world):  # a turn: a batch of each rank, at the end of some
                turn = batches[first : first + self.part.world]
                mine = (np.array(rows) for batch, rows in enumerate(turn, number + first) if self.part.owns(batch))
                turns.append((next(mine, np.empty(0, np.int64)), turn[-1].stop - start))
            number += len(batches)
            wanted = partial(np.concatenate, [rows for rows, _ in turns])
            parts.append((RowWindow(start, batches[-1].stop, wanted), turns))
        for (window, turns), following in zip(parts, [*parts[1:], None], strict=True):
            held = self.activations.window(*window, following and following[0])
            for rows, passed in turns:
                if len(rows):
                    yield self._batch(held, rows)
                self.activations.done(rows, passed)

    def _batch(self, held: Rows, rows: Int64[np.ndarray, " token"]) -> ActivationBatch:
        activations = {}
        for layer in self.layers:
            size = len(rows), self.activations.d_model
            activations[layer] = torch.empty(size, dtype=torch.bfloat16, pin_memory=self.pinned)
            held.gather_ascending(layer, rows, activations[layer])
        language = torch.from_numpy(held.languages(rows))
        return ActivationBatch(activations, language, torch.from_numpy(rows), held.shards_of)
