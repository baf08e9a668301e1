from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.activations import rolling
from bisae.activations.feed import Feed, HeldOutBatches
from bisae.activations.manifest import layer_path
from bisae.activations.order import ReadingOrder
from bisae.activations.rolling import Rolling, RollingActivations
from bisae.activations.store import Request
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_ranks import check_batch, covering, orders
from tests.activations.fake_source import D_MODEL, SIZES, FakeSource, silent
from tests.activations.rolling_job import ORDER, STEPS, is_window, killed, on_disk, reading, window


def size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the thread of the window that follows has moved it meanwhile
            size += file.stat().st_size if file.is_file() else 0
    return size


class WatchingSource(FakeSource):
    """Calls `look` in each LM pass."""

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, torch.Tensor]:
        self.look()
        return super().activations(shard, layers)

    def look(self) -> None: ...


@settings(max_examples=8)
@given(data=st.data(), held_out_tokens=st.integers(1, 200))
def test_a_job_never_has_more_on_disk_than_it_made_sure_there_is_room_for(
    data: st.DataObject, held_out_tokens: int
) -> None:
    order, room = data.draw(orders(1)), []
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling, "make_room", lambda root, keep, needed, *_: room.append(needed))
        store = Rolling(folder, disk_gib=1)
        training, held_out = WatchingSource(), WatchingSource(checkpoint=20)
        store.check(Request(training, held_out, [2, 4], order, held_out_tokens, ALONE), silent)
        most: list[int] = []
        for source in (training, held_out):
            source.look = lambda: most.append(size_of(Path(folder)))  # type: ignore[method-assign]
        with (
            reading(Path(folder) / "training", training, tokens=order.tokens) as reads,
            reading(Path(folder) / "validation", held_out, tokens=held_out_tokens) as scored,
        ):
            feed = Feed(reads, [2], order, 2)
            for epoch in range(2):
                for step in range(order.steps_per_epoch):
                    feed.batch(epoch, step)
                    most.append(size_of(Path(folder)))
                for _ in HeldOutBatches(scored, [2], held_out_tokens, order.batch, order.window_rows):
                    pass
    assert 0 < max(most) <= room[0]


def test_a_killed_jobs_files_are_used_again_and_only_what_lacks_is_computed(tmp_path: Path) -> None:
    killed(tmp_path, step=5)
    assert on_disk(tmp_path) == [1, 2, 3, 4]  # windows 1 and 2: rows 48 ... 143
    source = FakeSource()
    with reading(tmp_path, source) as activations:
        feed = Feed(activations, [2, 4], ORDER, 1)
        for step in range(5, 15):
            check_batch(feed, ORDER, 0, step)
        activations.close(finished=True)
    assert source.passes == [(5, (2, 4))]
    assert not tmp_path.exists()


@pytest.mark.parametrize("step", [0, 5])
def test_a_job_going_on_from_an_earlier_window_makes_room_before_it_writes(tmp_path: Path, step: int) -> None:
    killed(tmp_path, step=9)
    assert on_disk(tmp_path) == [2, 3, 4, 5]  # windows 2 and 3: rows 96 ... 189
    source, seen = WatchingSource(), []
    source.look = lambda: seen.append(on_disk(tmp_path))  # type: ignore[method-assign]
    with reading(tmp_path, source) as activations:
        check_batch(Feed(activations, [2, 4], ORDER, 1), ORDER, 0, step)
    keep = {*covering(*ORDER.window(step // STEPS)), *covering(*ORDER.window(step // STEPS + 1))}
    assert seen and all(set(found) <= keep for found in seen)
    assert {shard for shard, _ in source.passes} == keep - {2, 3, 4, 5}


@pytest.mark.parametrize("length", [0, 1, 2 * 33 * D_MODEL - 2, 2 * 33 * D_MODEL + 2])
def test_a_file_of_another_size_is_computed_again(tmp_path: Path, length: int) -> None:
    killed(tmp_path, step=0)
    damaged = layer_path(tmp_path, 4, 1)
    damaged.write_bytes(bytes(length))
    source = FakeSource()
    with reading(tmp_path, source) as activations:
        feed = Feed(activations, [2, 4], ORDER, 1)
        for step in range(STEPS):
            check_batch(feed, ORDER, 0, step)
    assert source.passes == [(1, (2, 4))]


def test_a_file_cut_short_by_a_kill_is_never_under_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, data: memoryview) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with reading(tmp_path) as activations, pytest.raises(OSError, match="no space left"):
        window(activations, 0, 1)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_files_are_deleted_once_no_window_needs_them_and_what_was_opened_stays_readable(tmp_path: Path) -> None:
    with reading(tmp_path) as activations:
        first = window(activations, 0, 1)
        window(activations, 1, 2)
        assert 0 not in on_disk(tmp_path)
        assert is_window(first, 0)
        window(activations, 2, None)
        assert on_disk(tmp_path) == covering(*ORDER.window(2))
    assert on_disk(tmp_path) == covering(*ORDER.window(2))


def test_rank_0_alone_deletes_the_folder_of_a_finished_job(tmp_path: Path) -> None:
    killed(tmp_path / "job", step=0)
    for rank, stays in ((1, True), (0, False)):
        RollingActivations(FakeSource(), tmp_path / "job", [2], 190, Part(rank, 2)).close(finished=True)
        assert (tmp_path / "job").exists() == stays


def gib(rows: int) -> float:
    """Of two layers."""
    return rows * 2 * D_MODEL * 2 / 2**30


@pytest.mark.parametrize(
    ("tokens", "held_out", "disk_gib", "key"),
    [
        (190, 201, 1.0, "validation_tokens"),
        (1000, 200, 1.0, "tokens"),  # the first window holds 240 tokens
        (190, 100, gib(190 + 100), "disk_gib"),
    ],
)
def test_what_cannot_be_had_is_refused_by_field_before_any_lm_work(
    tmp_path: Path, tokens: int, held_out: int, disk_gib: float, key: str
) -> None:
    training, validation = FakeSource(), FakeSource(checkpoint=20)
    order = ReadingOrder(seed=0, tokens=tokens, batch=12, block=8, pool_batches=4, window_pools=5)
    with pytest.raises(Refused) as refused:
        Rolling(str(tmp_path / "new"), disk_gib).check(
            Request(training, validation, [2, 4], order, held_out, ALONE), silent
        )
    assert refused.value.field == key
    assert training.passes == validation.passes == []


def test_a_folder_that_cannot_be_made_is_refused_by_field() -> None:
    with pytest.raises(Refused, match=r"^folder=/proc/x"):
        Rolling("/proc/x", 1).check(Request(FakeSource(), FakeSource(), [2], ORDER, 100, ALONE), silent)


def test_a_disk_that_was_large_enough_is_so_for_going_on_after_a_kill(tmp_path: Path) -> None:
    enough = gib(sum(SIZES) + 50 + sum(SIZES) + 50)
    store, sources = Rolling(str(tmp_path), enough), (FakeSource(), FakeSource(checkpoint=20))
    store.check(Request(*sources, [2, 4], ORDER, 190, ALONE), silent)
    activations = store.open(sources[0], [2, 4], 190, "job", ALONE, None)
    Feed(activations, [2, 4], ORDER, 1).batch(0, 5)
    activations.close(finished=False)
    assert size_of(tmp_path) > 0
    store.check(Request(*sources, [2, 4], ORDER, 190, ALONE), silent)
    (tmp_path / "other").write_bytes(bytes(int(enough * 2**30) // 2))  # but not what others have there
    with pytest.raises(Refused, match="^disk_gib="):
        store.check(Request(*sources, [2, 4], ORDER, 190, ALONE), silent)


def test_jobs_do_not_share_files(tmp_path: Path) -> None:
    store = Rolling(str(tmp_path), 1)
    for job, checkpoint in (("a", 10), ("a", 20), ("b", 10)):
        source = FakeSource(checkpoint=checkpoint)
        activations = store.open(source, [2], 190, job, ALONE, None)
        rows = window(activations, 0, None)
        assert torch.equal(rows.read(2, 0, 48), source.all_values(2)[:48])
        assert rows.languages(np.array([47, 3])).tolist() == [0, 0]
        activations.close(finished=False)
    assert len(list((tmp_path / "rolling").iterdir())) == 3
