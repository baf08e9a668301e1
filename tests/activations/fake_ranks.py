"""The ranks of a job as threads of one process, and what each of them should read."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import strategies as st

from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_source import SIZES, FakeSource

T = TypeVar("T")
BORDERS = np.cumsum([0, *SIZES])


def in_ranks(world: int, work: Callable[[Part], T], seconds: float = 20) -> list[T]:
    """`work` of each rank, all at once; an error in one breaks the others' messages, and is raised.

    `seconds`: how long a message waits for the other ranks.
    """
    meeting, here, message = threading.Barrier(world, timeout=seconds), threading.local(), [torch.empty(0)]

    def broadcast(tensor: torch.Tensor, src: int, group: object) -> None:
        if here.rank == src:
            message[0] = tensor.clone()
        meeting.wait()
        tensor.copy_(message[0])
        meeting.wait()

    def run(rank: int) -> T:
        here.rank = rank
        try:
            return work(Part(rank, world))
        except BaseException:
            meeting.abort()
            raise

    with (
        patch.multiple(
            torch.distributed,
            barrier=lambda group=None: meeting.wait(),
            broadcast=broadcast,
            new_group=lambda backend: backend,
        ),
        ThreadPoolExecutor(world) as threads,
    ):
        futures = [threads.submit(run, rank) for rank in range(world)]
        errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


@st.composite
def orders(draw: st.DrawFn, world: int) -> ReadingOrder:
    """Orders over the fake source, of at most 24 steps and eight windows."""
    batch = world * draw(st.integers(1, 24 // world))
    tokens = draw(st.integers(batch, min(24 * batch, sum(SIZES))))
    pool_batches = draw(st.integers(1, 4))
    least = -(-tokens // (batch * pool_batches * 8))
    window_pools = draw(st.integers(least, least + 3))
    return ReadingOrder(draw(st.integers(0, 3)), tokens, batch, draw(st.integers(1, 60)), pool_batches, window_pools)


def covering(start: int, stop: int) -> list[int]:
    """The shards of the rows start ... stop - 1."""
    return [n for n in range(len(SIZES)) if BORDERS[n] < stop and BORDERS[n + 1] > start]


def check_batch(feed: Feed, order: ReadingOrder, epoch: int, step: int, part: Part = ALONE) -> None:
    """The feed gives just the rows of this rank, as a feed over a cache does (test_feed.py)."""
    batch, rows = feed.batch(epoch, step), order.rank_rows(epoch, step, *part)
    source = FakeSource()
    assert batch.rows.tolist() == rows.tolist()
    assert batch.language.tolist() == (rows // 50 % 2).tolist()
    for layer in feed.layers:
        assert torch.equal(batch.activations[layer], source.all_values(layer)[rows]), (epoch, step, part, layer)
