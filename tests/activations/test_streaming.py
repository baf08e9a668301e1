import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bisae.activations import streaming
from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.rolling import RollingActivations
from bisae.activations.store import Request
from bisae.activations.streaming import Streaming, StreamingActivations
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_ranks import check_batch, covering, in_ranks, orders
from tests.activations.fake_source import D_MODEL, SIZES, FakeSource, silent

ORDER = ReadingOrder(seed=3, tokens=190, batch=12, block=7, pool_batches=2, window_pools=2)  # 15 steps, 4 windows


@settings(max_examples=25)
@given(data=st.data(), world=st.integers(1, 3), ahead=st.booleans())
def test_every_step_of_every_rank_reads_its_rows_with_one_lm_pass_a_shard_and_one_window_in_ram(
    data: st.DataObject, world: int, ahead: bool
) -> None:
    order = data.draw(orders(world))

    def train(part: Part) -> FakeSource:
        source = FakeSource()
        activations = StreamingActivations(source, [4, 2], order.tokens, part, ahead=ahead)
        feed = Feed(activations, [2, 4], order, 2, part)
        for epoch in range(2):
            for step in range(order.steps_per_epoch):
                check_batch(feed, order, epoch, step, part)
        # And the rest of the shard in which it ended. A part's share of the first rows may be larger than of all.
        window = max(order.window(number)[1] - order.window(number)[0] for number in range(order.windows))
        assert activations._stock.most <= (window + ahead * max(SIZES) if world == 1 or not ahead else 2 * window)
        activations.close(finished=True)
        return source

    sources = in_ranks(world, train)
    needed = covering(0, order.tokens)
    assert sorted(shard for source in sources for shard, _ in source.passes) == sorted(2 * needed)
    assert all(shard % world == rank for rank, source in enumerate(sources) for shard, _ in source.passes)
    assert not any(source.slips for source in sources)


@settings(max_examples=20)
@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 14)), max_size=6),
    world=st.integers(1, 2),
    ahead=st.booleans(),
)
@example(steps=[(0, 14), (0, 0), (1, 14)], world=2, ahead=True)  # the last window is smaller
def test_jumping_anywhere_gives_the_batch_of_that_step(steps: list[tuple[int, int]], world: int, ahead: bool) -> None:
    def read(part: Part) -> list[str]:
        source = FakeSource()
        activations = StreamingActivations(source, [4], 190, part, ahead=ahead)
        feed = Feed(activations, [4], ORDER, 2, part)
        for epoch, step in steps:
            check_batch(feed, ORDER, epoch, step, part)
            check_batch(feed, ORDER, epoch, step, part)
        activations.close(finished=True)
        return source.slips

    assert in_ranks(world, read) == [[]] * world


def test_the_lm_runs_while_a_window_is_read_and_no_further_than_its_done_rows_allow() -> None:
    source = FakeSource()
    activations = StreamingActivations(source, [2], 190, ahead=True)
    feed = Feed(activations, [2], ORDER, 1)
    check_batch(feed, ORDER, 0, 0)  # rows 0 ... 47 of shards of 40, 33, 50, ... rows
    deadline = time.monotonic() + 10
    while len(source.passes) < 3:  # shard 2 waits until rows are done whose memory it takes
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for step in (1, 2, 3):
        check_batch(feed, ORDER, 0, step)
    assert [shard for shard, _ in source.passes] == [0, 1, 2] and activations._stock.most <= 48 + 25
    check_batch(feed, ORDER, 0, 4)  # window 1, rows 48 ... 95
    assert sorted(shard for shard, _ in source.passes)[:3] == [0, 1, 2] and source.slips == []
    activations.close(finished=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("activation-lm")]


def test_the_lm_has_a_thread_of_its_own_only_where_the_activations_are_used_on_a_gpu() -> None:
    opened = [Streaming().open(FakeSource(), [2], 190, "job", ALONE, None, on_gpu=on_gpu) for on_gpu in (False, True)]
    for activations in opened:
        check_batch(Feed(activations, [2], ORDER, 1), ORDER, 0, 0)
    assert [activations._computing is not None for activations in opened] == [False, True]
    opened[1].close(finished=True)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_job_that_goes_on_in_the_middle_of_a_window_keeps_only_the_rows_still_to_be_read(ahead: bool) -> None:
    activations = StreamingActivations(FakeSource(), [2], 190, ahead=ahead)
    feed = Feed(activations, [2], ORDER, 1)
    check_batch(feed, ORDER, 0, 6)  # of steps 4 ... 7 of window 1
    assert activations._stock._used == 24 + ahead * (123 - 96)  # and shard 2 from window 2's first row on
    for step in range(7, 15):
        check_batch(feed, ORDER, 0, step)
    activations.close(finished=True)


def window(activations: StreamingActivations, start: int, stop: int, wanted: Sequence[int]) -> streaming.KeptRows:
    return activations.window(start, stop, lambda: np.array(wanted), None)


def gathered(kept: streaming.KeptRows, rows: Sequence[int]) -> torch.Tensor:
    out = torch.empty(len(rows), D_MODEL, dtype=torch.bfloat16)
    kept.gather_ascending(2, np.array(rows, dtype=np.int64), out)
    return out


def test_only_rows_that_were_asked_for_are_kept_and_others_are_refused() -> None:
    activations, values = StreamingActivations(FakeSource(), [2], 200), FakeSource().all_values(2)
    kept = window(activations, 30, 130, [31, 45, 129])
    assert torch.equal(gathered(kept, [31, 129]), values[[31, 129]])
    assert kept.languages(np.array([129, 31])).tolist() == [129 // 50 % 2, 0]
    assert kept.shards_of(np.array([129, 31, 45])) == [0, 1, 4]
    assert activations._stock.most == 3
    for rows in ([30], [32], [31, 44], [130], [199]):
        with pytest.raises(IndexError, match="not asked for"):
            gathered(kept, rows)
        with pytest.raises(IndexError, match="not asked for"):
            kept.languages(np.array(rows))


def test_rows_of_a_window_gone_by_are_refused_and_never_mistaken_for_others() -> None:
    activations = StreamingActivations(FakeSource(), [2], 200)
    before = window(activations, 0, 50, [3, 7])
    now = window(activations, 50, 100, [60])
    with pytest.raises(IndexError, match="a window gone by"):
        gathered(before, [3])
    assert torch.equal(gathered(now, [60]), FakeSource().all_values(2)[[60]])


def test_after_a_window_whose_lm_pass_fails_the_one_before_is_computed_again() -> None:
    source = FakeSource(fails_at=3)
    activations = StreamingActivations(source, [2], 200)
    feed = Feed(activations, [2], ORDER, 1)
    feed.batch(0, 0)
    with pytest.raises(RuntimeError, match="no memory for shard 3"):
        feed.batch(0, 8)
    check_batch(feed, ORDER, 0, 0)


def test_a_rank_that_wants_nothing_of_a_window_still_hands_its_shards_to_the_others() -> None:
    def read(part: Part) -> None:
        activations = StreamingActivations(FakeSource(), [2], 200, part)
        rows = [] if part.rank else list(range(100, 180))
        kept = activations.window(100, 180, lambda: np.array(rows, dtype=np.int64), None)
        assert torch.equal(gathered(kept, rows), FakeSource().all_values(2)[rows])

    in_ranks(2, read)


def test_the_ranks_run_their_lms_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=5)

    class MeetingSource(FakeSource):
        def activations(self, shard: int, layers: Sequence[int]) -> dict[int, torch.Tensor]:
            together.wait()  # BrokenBarrierError if the other rank only waits for this one
            return super().activations(shard, layers)

    def read(part: Part) -> None:
        window(StreamingActivations(MeetingSource(), [2], 200, part), 0, 200, [5])

    in_ranks(2, read)


def in_processes(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    part = Part(rank, world)
    source = FakeSource(log=Path(folder) / f"passes{rank}")
    for activations in (
        StreamingActivations(source, [2, 4], 190, part),
        RollingActivations(source, Path(folder) / "rolling", [2, 4], 190, part),
    ):
        feed = Feed(activations, [2, 4], ORDER, 2, part)
        for epoch in range(2):
            for step in range(ORDER.steps_per_epoch):
                check_batch(feed, ORDER, epoch, step, part)
        torch.distributed.barrier()
        activations.close(finished=True)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_real_processes_read_what_each_of_them_should(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(in_processes, (2, str(tmp_path)), nprocs=2)
    assert not (tmp_path / "rolling").exists()
    for rank in range(2):
        passes = (tmp_path / f"passes{rank}").read_text().splitlines()
        assert {int(line.split()[0]) % 2 for line in passes} == {rank}


@pytest.mark.parametrize(
    ("tokens", "held_out", "memory", "key"),
    [
        (190, 201, 2**30, "validation_tokens"),
        (1000, 200, 2**30, "tokens"),  # the first window holds 240 tokens
        (190, 100, 190 * 2 * D_MODEL * 2, "window_pools"),
    ],
)
def test_what_cannot_be_had_is_refused_by_field_before_any_lm_work(
    monkeypatch: pytest.MonkeyPatch, tokens: int, held_out: int, memory: int, key: str
) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}[name])
    training, validation = FakeSource(), FakeSource(checkpoint=20)
    order = ReadingOrder(seed=0, tokens=tokens, batch=12, block=8, pool_batches=4, window_pools=5)
    with pytest.raises(Refused) as refused:
        Streaming().check(Request(training, validation, [2, 4], order, held_out, ALONE), silent)
    assert refused.value.field == key
    assert training.passes == validation.passes == []


@pytest.mark.parametrize("world", [1, 2])
def test_memory_is_enough_for_a_ranks_part_of_both_windows_and_its_shards(
    monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    # Shards of 50 rows: its own of two layers, another rank's of one, the end of one in which a window ended of two.
    rows = (190 + 100) // world + 5 * 50 // 2
    order = ReadingOrder(seed=0, tokens=190, batch=12, block=8, pool_batches=4, window_pools=5)
    for pages, fits in ((rows, True), (rows - 1, False)):
        memory = {"SC_PAGE_SIZE": 2 * D_MODEL * 2, "SC_PHYS_PAGES": pages}  # of a row of two layers
        monkeypatch.setattr("os.sysconf", memory.__getitem__)
        try:
            Streaming().check(Request(FakeSource(), FakeSource(), [2, 4], order, 100, Part(0, world)), silent)
        except Refused:
            assert not fits
        else:
            assert fits


def test_a_corpus_that_ends_within_a_later_window_is_refused_by_field_at_once_and_when_it_ends() -> None:
    order = ReadingOrder(seed=0, tokens=300, batch=10, block=8, pool_batches=5, window_pools=1)
    with pytest.raises(Refused, match="^tokens=300: the corpus split holds only 200 tokens"):
        Streaming().check(Request(FakeSource(), FakeSource(), [2], order, 100, ALONE), silent)
    feed = Feed(StreamingActivations(FakeSource(), [2], 300), [2], order, 1)
    for step in range(20):
        check_batch(feed, order, 0, step)
    with pytest.raises(Refused, match=r"^tokens=300: the corpus split holds only 200 tokens"):
        feed.batch(0, 20)
