import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bisae.activations import rolling
from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.rolling import Rolling, RollingActivations
from bisae.activations.store import Request, RowWindow
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_ranks import check_batch, covering, in_ranks, orders
from tests.activations.fake_source import D_MODEL, FakeSource, silent
from tests.activations.rolling_job import ORDER, STEPS, is_window, killed, on_disk, reading, window


@pytest.fixture(autouse=True, scope="module")
def looks_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling, "SECONDS_BETWEEN_LOOKS", 0.002)
        yield


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("activation-writer")]


@settings(max_examples=15)
@given(data=st.data(), world=st.integers(1, 3))
def test_every_step_of_every_rank_reads_its_rows_with_two_windows_on_disk_and_one_lm_pass_a_shard(
    data: st.DataObject, world: int
) -> None:
    order = data.draw(orders(world))
    shards = [set(covering(*order.window(window))) for window in range(order.windows)]

    def train(part: Part) -> FakeSource:
        source = FakeSource()
        with reading(Path(folder) / "job", source, [4, 2], part, order.tokens) as activations:
            feed = Feed(activations, [2, 4], order, 2, part)
            for epoch in range(2):
                for step in range(order.steps_per_epoch):
                    check_batch(feed, order, epoch, step, part)
                    number = step // (order.window_pools * order.pool_batches)
                    if part.rank == 0:
                        last = epoch == 1 and number == order.windows - 1
                        following = set() if last else shards[(number + 1) % order.windows]
                        assert set(on_disk(Path(folder))) <= shards[number] | following
            torch.distributed.barrier()
            activations.close(finished=True)
        return source

    with TemporaryDirectory() as folder:
        sources = in_ranks(world, train)
        assert list(Path(folder).iterdir()) == []
    held, needed = shards[0], list(shards[0])
    for here, following in pairwise(2 * shards):
        needed += following - held
        held = here | following
    assert sorted(shard for source in sources for shard, _ in source.passes) == sorted(needed)
    assert all(shard % world == rank for rank, source in enumerate(sources) for shard, _ in source.passes)
    assert not any(source.slips for source in sources)


@settings(max_examples=20)
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 14)), max_size=6), world=st.integers(1, 2))
@example(steps=[(0, 14), (0, 0), (1, 14)], world=2)  # the last window is smaller
def test_jumping_anywhere_gives_the_batch_of_that_step(steps: list[tuple[int, int]], world: int) -> None:
    def read(part: Part) -> list[str]:
        source = FakeSource()
        with reading(Path(folder), source, [4], part) as activations:
            feed = Feed(activations, [4], ORDER, 2, part)
            for epoch, step in steps:
                check_batch(feed, ORDER, epoch, step, part)
        return source.slips

    with TemporaryDirectory() as folder:
        assert in_ranks(world, read) == [[]] * world


@contextmanager
def waiting_rank(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RollingActivations]:
    """Rank 0 of two, which has read window 0 and waits for shard 3 of window 2, which the other never writes."""
    monkeypatch.setattr(torch.distributed, "barrier", lambda group: None)
    monkeypatch.setattr(torch.distributed, "new_group", lambda backend: backend)
    killed(folder, step=0)
    with reading(folder, part=Part(0, 2)) as activations:
        assert is_window(window(activations, 0, 2), 0)
        deadline = time.monotonic() + 10
        while set(on_disk(folder)) < {0, 1, 2, 4}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert activations._ahead is not None and not activations._ahead[2].done()
        yield activations


def test_a_rank_that_waits_for_anothers_shards_can_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting_rank(tmp_path, monkeypatch):
        assert len(writers()) == 1
    assert writers() == []


def test_a_rank_that_waits_for_anothers_shards_can_jump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with waiting_rank(tmp_path, monkeypatch) as activations:
        assert is_window(window(activations, 0, None), 0)


def test_a_jump_ends_what_was_being_written_ahead(tmp_path: Path) -> None:
    source = FakeSource(seconds_per_pass=0.05)
    with reading(tmp_path, source) as activations:
        activations.window(0, 30, None, RowWindow(30, 190, lambda: np.arange(0)))  # ahead: shards 0 ... 5
        assert activations.window(150, 170, None, None).read(2, 150, 170).shape == (20, D_MODEL)
    assert {shard for shard, _ in source.passes} <= {0, 1, 4}
    assert source.slips == []


@pytest.mark.parametrize("shard", [0, 1, 3, 5])
def test_an_error_of_the_lm_reaches_the_reader_of_its_window_not_earlier(tmp_path: Path, shard: int) -> None:
    fails = min(number for number in range(ORDER.windows) if shard in covering(*ORDER.window(number)))
    with reading(tmp_path, FakeSource(fails_at=shard)) as activations:
        feed = Feed(activations, [2], ORDER, 1)
        for step in range(fails * STEPS):
            check_batch(feed, ORDER, 0, step)
        with pytest.raises(RuntimeError, match=f"no memory for shard {shard}"):
            feed.batch(0, fails * STEPS)
    assert writers() == []


def test_the_lm_runs_while_a_window_is_read_and_the_corpus_is_never_read_beside_it(tmp_path: Path) -> None:
    source = FakeSource(seconds_per_pass=0.02)
    with reading(tmp_path, source) as activations:
        feed = Feed(activations, [2], ORDER, 1)
        feed.batch(0, 0)
        deadline = time.monotonic() + 10
        while len(source.passes) < 3:  # the batches of window 0 need shards 0 and 1 only
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for step in range(1, 15):
            check_batch(feed, ORDER, 0, step)
    assert source.slips == []


def test_a_corpus_that_ends_within_a_later_window_is_refused_by_field_at_once_and_when_it_ends(tmp_path: Path) -> None:
    order = ReadingOrder(seed=0, tokens=300, batch=10, block=8, pool_batches=5, window_pools=1)
    with pytest.raises(Refused, match="^tokens=300: the corpus split holds only 200 tokens"):
        Rolling(str(tmp_path), 1).check(Request(FakeSource(), FakeSource(), [2], order, 100, ALONE), silent)
    with reading(tmp_path, tokens=300) as activations:
        feed = Feed(activations, [2], order, 1)
        with pytest.raises(Refused, match=r"^tokens=300: the corpus split holds only 200 tokens"):
            for step in range(30):
                check_batch(feed, order, 0, step)
    assert step >= 10
    assert writers() == []
