import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import bisae.runtime.lock
from bisae.activations import cache as cache_module
from bisae.activations import disk_budget, writer
from bisae.activations.cache import ActivationCache
from bisae.activations.manifest import Manifest
from bisae.activations.reader import CachedActivations
from bisae.runtime.errors import Refused
from tests.activations.fake_source import FakeSource, snapshot

ROOT = Path(__file__).parents[2]


def make_cache(folder: Path) -> ActivationCache:
    return ActivationCache(folder, disk_gib=1, evict=False, verify=True)


def start_process(
    root: Path, log: Path, seconds: float = 0, kill: int = 0, moment: str = "after"
) -> "subprocess.Popen[bytes]":
    arguments = [str(root), str(log), str(seconds), str(kill), moment]
    return subprocess.Popen([sys.executable, "-m", "tests.activations.writing_process", *arguments], cwd=ROOT)


def made_at_once(folder: Path, layers: list[int], tokens: int) -> dict[str, bytes]:
    source = FakeSource()
    make_cache(folder).prepare(source, layers, tokens)
    return snapshot(make_cache(folder).path(source))


def test_one_pass_gives_all_layers_and_the_cache_gives_back_their_values(tmp_path: Path) -> None:
    source = FakeSource()
    cached = make_cache(tmp_path).prepare(source, [4, 2], tokens=100)
    assert source.passes == [(0, (2, 4)), (1, (2, 4)), (2, (2, 4))]
    assert (cached.tokens, cached.layers, cached.d_model) == (123, (2, 4), 8)
    for layer in (2, 4):
        assert torch.equal(cached.read(layer, 0, 123), source.all_values(layer)[:123])


def test_a_second_request_runs_no_lm(tmp_path: Path) -> None:
    make_cache(tmp_path).prepare(FakeSource(), [2, 4], tokens=100)
    source = FakeSource()
    cached = make_cache(tmp_path).prepare(source, [4], tokens=60)
    assert source.passes == []
    assert (cached.tokens, cached.layers) == (73, (4,))


def test_extension_by_tokens_and_layers_computes_only_the_gaps_and_equals_a_cache_made_at_once(tmp_path: Path) -> None:
    source, cache = FakeSource(), make_cache(tmp_path / "grown")
    cache.prepare(source, [4], tokens=60)
    cache.prepare(source, [4], tokens=120)
    cache.prepare(source, [2, 4], tokens=160)
    layer_4_then_both = [(0, (4,)), (1, (4,)), (2, (4,)), (0, (2,)), (1, (2,)), (2, (2,)), (3, (2, 4)), (4, (2, 4))]
    assert source.passes == layer_4_then_both
    assert snapshot(cache.path(source)) == made_at_once(tmp_path / "once", [2, 4], tokens=160)


def test_a_corpus_that_is_too_short_is_refused_before_any_lm_work(tmp_path: Path) -> None:
    source = FakeSource()
    with pytest.raises(Refused, match=r"^tokens=201: the corpus split holds only 200 tokens"):
        make_cache(tmp_path).prepare(source, [2], tokens=201)
    assert source.passes == []
    assert make_cache(tmp_path).prepare(source, [2], tokens=200).tokens == 200


def test_no_tokens_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="^tokens=0"):
        make_cache(tmp_path).prepare(FakeSource(), [2], tokens=0)


def test_progress_counts_tokens_already_cached_as_done(tmp_path: Path) -> None:
    cache, seen = make_cache(tmp_path), []
    cache.prepare(FakeSource(), [2], tokens=60)
    cache.prepare(FakeSource(), [2], tokens=124, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(73, 124), (123, 124), (124, 124)]


@pytest.mark.slow
def test_of_two_processes_exactly_one_writes(tmp_path: Path) -> None:
    log = tmp_path / "passes"
    processes = [start_process(tmp_path / "cache", log, seconds=0.2) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert log.read_text().splitlines() == [f"{shard} [2, 4]" for shard in range(3)]
    assert snapshot(make_cache(tmp_path / "cache").path(FakeSource())) == made_at_once(tmp_path / "once", [2, 4], 100)


# Each shard has four renames: token file, two layers, manifest.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("rename", "moment", "shards_done"),
    [(1, "before", 0), (4, "before", 0), (4, "after", 1), (7, "before", 1), (10, "after", 2), (12, "before", 2)],
)
def test_a_killed_writer_is_resumed_at_its_first_incomplete_shard(
    tmp_path: Path, rename: int, moment: str, shards_done: int
) -> None:
    source, cache = FakeSource(), make_cache(tmp_path / "cache")
    assert start_process(cache.folder, tmp_path / "passes", kill=rename, moment=moment).wait(timeout=120) == -9
    assert any(cache.folder.rglob("*.tmp")) == (moment == "before")
    cache.prepare(source, [2, 4], tokens=100)
    assert source.passes == [(shard, (2, 4)) for shard in range(shards_done, 3)]
    assert snapshot(cache.path(source)) == made_at_once(tmp_path / "once", [2, 4], tokens=100)


def test_a_waiting_process_says_so_and_then_finds_the_work_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cache, first, second = make_cache(tmp_path), FakeSource(seconds_per_pass=0.3), FakeSource()
    writing = threading.Thread(target=cache.prepare, args=(first, [2], 60))
    writing.start()
    while not first.passes:
        time.sleep(0.01)
    cached = cache.prepare(second, [2], tokens=60)
    writing.join()
    assert second.passes == []
    assert torch.equal(cached.read(2, 0, 73), first.all_values(2)[:73])
    messages = [message for message in caplog.messages if "waits for the one that writes" in message]
    assert len(messages) == 1 and str(cache.path(first)) in messages[0]


def test_a_complete_cache_is_read_without_lock_and_without_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, source = make_cache(tmp_path), FakeSource()
    cache.prepare(source, [2], tokens=60)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(writer, "atomic_file", refuse)
    monkeypatch.setattr(bisae.runtime.lock, "FileLock", refuse)
    for name in ("touch", "mkdir", "unlink", "write_bytes", "write_text"):
        monkeypatch.setattr(Path, name, refuse)
    assert torch.equal(cache.prepare(source, [2], tokens=60).read(2, 0, 73), source.all_values(2)[:73])
    with pytest.raises(PermissionError):
        cache.prepare(source, [2], tokens=80)


def test_a_cache_evicted_while_it_is_being_opened_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, source = make_cache(tmp_path), FakeSource()
    cache.prepare(source, [2], tokens=60)
    evictions = [cache.path(source)]

    def open_late(folder: Path, manifest: Manifest, layers: list[int], tokens: int, verify: bool) -> CachedActivations:
        if evictions:
            disk_budget._delete(evictions.pop())
        return CachedActivations(folder, manifest, layers, tokens, verify)

    monkeypatch.setattr(cache_module, "CachedActivations", open_late)
    again = FakeSource()
    assert torch.equal(cache.prepare(again, [2], tokens=60).read(2, 0, 73), source.all_values(2)[:73])
    assert [shard for shard, _ in again.passes] == [0, 1]


def test_checkpoints_have_their_own_folders(tmp_path: Path) -> None:
    cache, early, late = make_cache(tmp_path), FakeSource(checkpoint=10), FakeSource(checkpoint=20)
    first, second = cache.prepare(early, [2], tokens=60), cache.prepare(late, [2], tokens=60)
    assert not torch.equal(first.read(2, 0, 73), second.read(2, 0, 73))
    assert len(list(tmp_path.iterdir())) == 2
