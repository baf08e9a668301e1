import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from bisae.activations import disk_budget
from bisae.activations.cache import ActivationCache
from bisae.runtime.errors import Refused
from tests.activations.fake_source import FakeSource

KIB = 2**-20  # in GiB


def make_cache(folder: Path, kib: float, evict: bool = False) -> ActivationCache:
    return ActivationCache(folder, disk_gib=kib * KIB, evict=evict, verify=True)


def fill(folder: Path, checkpoint: int, last_use: int) -> FakeSource:
    """A cache of about 5 KiB in two shards, last used at `last_use`."""
    source, cache = FakeSource(checkpoint), make_cache(folder, kib=1000)
    cache.prepare(source, [2, 4], tokens=60)
    os.utime(cache.path(source) / "used", (last_use, last_use))
    source.passes.clear()
    return source


def is_there(cache: ActivationCache, source: FakeSource) -> bool:
    return (cache.path(source) / "manifest.json").exists()


def test_a_cache_over_budget_is_refused_before_any_lm_work(tmp_path: Path) -> None:
    source = FakeSource()
    with pytest.raises(Refused, match=r"^disk_gib=.* needed, .* used .* budget .* evict=true"):
        make_cache(tmp_path, kib=3).prepare(source, [2, 4], tokens=60)
    assert source.passes == []


def test_other_caches_count_and_stay_unless_eviction_is_asked_for(tmp_path: Path) -> None:
    old = fill(tmp_path, checkpoint=1, last_use=1)
    new, cache = FakeSource(checkpoint=2), make_cache(tmp_path, kib=8)
    with pytest.raises(Refused, match="^disk_gib="):
        cache.prepare(new, [2, 4], tokens=60)
    assert new.passes == [] and is_there(cache, old)


@pytest.mark.parametrize(("recent_checkpoint", "oldest_checkpoint"), [(1, 2), (2, 1)])
def test_eviction_takes_the_least_recently_used_cache_and_no_more_than_needed(
    tmp_path: Path, recent_checkpoint: int, oldest_checkpoint: int
) -> None:
    recent = fill(tmp_path, recent_checkpoint, last_use=200)
    oldest = fill(tmp_path, oldest_checkpoint, last_use=100)
    cache, new = make_cache(tmp_path, kib=12, evict=True), FakeSource(checkpoint=3)
    cache.prepare(new, [2, 4], tokens=60)
    assert [is_there(cache, source) for source in (recent, oldest, new)] == [True, False, True]


def test_use_is_remembered_by_reading(tmp_path: Path) -> None:
    read_again, oldest = fill(tmp_path, checkpoint=1, last_use=100), fill(tmp_path, checkpoint=2, last_use=200)
    cache = make_cache(tmp_path, kib=12, evict=True)
    cache.prepare(read_again, [2, 4], tokens=60)
    cache.prepare(FakeSource(checkpoint=3), [2, 4], tokens=60)
    assert [is_there(cache, source) for source in (read_again, oldest)] == [True, False]


def test_a_cache_that_is_being_written_is_never_evicted(tmp_path: Path) -> None:
    written, idle = fill(tmp_path, checkpoint=1, last_use=100), fill(tmp_path, checkpoint=2, last_use=200)
    cache = make_cache(tmp_path, kib=12, evict=True)
    with FileLock(cache.path(written) / ".lock"):
        cache.prepare(FakeSource(checkpoint=3), [2, 4], tokens=60)
    assert [is_there(cache, source) for source in (written, idle)] == [True, False]


def test_nothing_is_evicted_where_that_would_not_suffice(tmp_path: Path) -> None:
    old = fill(tmp_path, checkpoint=1, last_use=1)
    cache, new = make_cache(tmp_path, kib=6, evict=True), FakeSource(checkpoint=2)
    with pytest.raises(Refused, match="other caches cannot make way"):
        cache.prepare(new, [2, 4], tokens=200)
    assert new.passes == [] and is_there(cache, old)


def test_growing_a_cache_never_evicts_itself(tmp_path: Path) -> None:
    source = fill(tmp_path, checkpoint=1, last_use=1)
    with pytest.raises(Refused, match="^disk_gib="):
        make_cache(tmp_path, kib=10, evict=True).prepare(source, [2, 4], tokens=200)
    assert is_there(make_cache(tmp_path, kib=10), source)


def test_a_reader_keeps_its_values_when_its_cache_is_evicted(tmp_path: Path) -> None:
    source = fill(tmp_path, checkpoint=1, last_use=1)
    cached = make_cache(tmp_path, kib=12).prepare(source, [2, 4], tokens=60)
    cache = make_cache(tmp_path, kib=9, evict=True)
    cache.prepare(FakeSource(checkpoint=2), [2, 4], tokens=60)
    assert not is_there(cache, source)
    assert torch.equal(cached.read(4, 0, 73), source.all_values(4)[:73])
    assert len(cached.token_ids) == 73


def test_a_foreign_folder_in_the_root_is_never_deleted(tmp_path: Path) -> None:
    foreign = tmp_path / "notes" / "mine.txt"
    foreign.parent.mkdir()
    foreign.write_bytes(b"x" * 8192)
    with pytest.raises(Refused, match="^disk_gib="):
        make_cache(tmp_path, kib=10, evict=True).prepare(FakeSource(), [2, 4], tokens=60)
    assert foreign.exists()


def test_a_file_system_without_room_is_refused_before_any_lm_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk_budget.shutil, "disk_usage", lambda _: real._replace(free=disk_budget.MARGIN_BYTES + 1000))
    source = FakeSource()
    with pytest.raises(Refused, match="free on disk"):
        make_cache(tmp_path, kib=1000).prepare(source, [2], tokens=60)
    assert source.passes == []


def test_a_complete_cache_over_budget_is_still_read(tmp_path: Path) -> None:
    source = fill(tmp_path, checkpoint=1, last_use=1)
    assert make_cache(tmp_path, kib=0).prepare(source, [2, 4], tokens=60).tokens == 73
