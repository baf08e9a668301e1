"""The order in which rows are read: well mixed, read from disk in blocks, resumable at any step."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from bisae.runtime.errors import Refused


@dataclass(frozen=True)
class ReadingOrder:
    """Block shuffle with a mixing pool over the first `tokens` rows: a pure function of (seed, epoch, step).

    Rows are cut into windows of `window_pools` pools of `pool_batches` batches. Windows are read one after another, so
    only one has to be in memory or on disk. In a window, blocks of `block` contiguous rows are permuted, and the list
    of their rows is cut into pools; rows are permuted inside each pool and cut into batches of exactly `batch` rows.
    A row comes at most once in an epoch; the `tokens % batch` rows that are left out differ between epochs.
    With pool_batches >= 4 * block a batch holds about 90 % as many documents of 64 tokens as one of a full shuffle,
    and its language shares vary as little (measured in tests/activations/test_order.py).
    """

    seed: int
    tokens: int
    batch: int
    block: int
    pool_batches: int
    window_pools: int

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise Refused("seed", self.seed, "must not be negative")
        if self.batch < 1:
            raise Refused("batch", self.batch, "must be at least 1")
        if self.batch > self.tokens:
            raise Refused("batch", self.batch, f"is more than tokens={self.tokens}")
        if self.block < 1:
            raise Refused("block", self.block, "must be at least 1")
        if self.pool_batches < 1:
            raise Refused("pool_batches", self.pool_batches, "must be at least 1")
        if self.window_pools < 1:
            raise Refused("window_pools", self.window_pools, "must be at least 1")

    @property
    def steps_per_epoch(self) -> int:
        return self.tokens // self.batch

    @property
    def windows(self) -> int:
        """Number of windows in an epoch."""
        return -(-self.steps_per_epoch // (self.window_pools * self.pool_batches))

    @property
    def window_rows(self) -> int:
        """Number of rows of a window; the last one may have more or fewer."""
        return self.window_pools * self.pool_batches * self.batch

    def window(self, number: int) -> tuple[int, int]:
        """Return (start, stop) of a window's rows. The last window also has the rows that fill no batch."""
        size = self.window_rows
        return number * size, self.tokens if number == self.windows - 1 else (number + 1) * size

    def pools(self, window: int) -> range:
        """Return the numbers of a window's pools."""
        last = (self.steps_per_epoch - 1) // self.pool_batches
        return range(window * self.window_pools, min((window + 1) * self.window_pools, last + 1))

    def rows(self, epoch: int, step: int) -> Int64[np.ndarray, " token"]:
        """Return the `batch` rows of one step. Raises IndexError outside 0 ... `steps_per_epoch` - 1."""
        return self.rank_rows(epoch, step, rank=0, world=1)

    def rank_rows(self, epoch: int, step: int, rank: int, world: int) -> Int64[np.ndarray, " token"]:
        """Return the part of `rows` that belongs to `rank` of `world`; rank 0 has the first part."""
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step {step} of an epoch of {self.steps_per_epoch} steps")
        pool, batch = divmod(step, self.pool_batches)
        return self.pool_rows(epoch, pool, rank, world)[batch].copy()

    def pool_rows(self, epoch: int, pool: int, rank: int = 0, world: int = 1) -> Int64[np.ndarray, "batch token"]:
        """Return the `rank_rows` of all batches of a pool, read-only; the last pool may have fewer batches."""
        if self.batch % world:
            raise Refused("batch", self.batch, f"must be a multiple of the number of ranks, {world}")
        if not 0 <= rank < world:
            raise IndexError(f"rank {rank} of {world}")
        share = self.batch // world
        return _pool(self, epoch, pool)[:, rank * share : (rank + 1) * share]

    def random(self, epoch: int, *stream: int) -> np.random.Generator:
        # A spawn key, not more words of entropy: those would make (seed, 1) and (seed, 1, 0) the same generator.
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(epoch, *stream))))


@lru_cache(maxsize=2)
def _blocks(
    order: ReadingOrder, epoch: int, window: int
) -> tuple[Int64[np.ndarray, " block"], Int64[np.ndarray, " border"]]:
    """Return the first row of each block, permuted, and where the block begins in the list of all their rows."""
    start, stop = order.window(window)
    stream = (0, window) if window else (0,)  # pools have the streams from 1
    first = order.random(epoch, *stream).permutation(np.arange(start, stop, order.block))
    lengths = np.minimum(order.block, stop - first)  # the last block may be short, wherever it went
    return first, start + np.cumsum(lengths) - lengths


@lru_cache(maxsize=2)
def _pool(order: ReadingOrder, epoch: int, pool: int) -> Int64[np.ndarray, "batch token"]:
    first, begins = _blocks(order, epoch, pool // order.window_pools)
    size = order.pool_batches * order.batch
    last = (order.steps_per_epoch - 1) // order.pool_batches
    # The last pool also mixes in the rows that fill no batch: else one big block would always leave out the same.
    stop = order.tokens if pool == last else (pool + 1) * size
    place = np.arange(pool * size, stop)
    block = np.searchsorted(begins, place, side="right") - 1
    rows = order.random(epoch, pool + 1).permutation(first[block] + place - begins[block])
    batches = min(order.pool_batches, order.steps_per_epoch - pool * order.pool_batches)
    rows = rows[: batches * order.batch].reshape(batches, order.batch)
    rows.setflags(write=False)
    return rows
