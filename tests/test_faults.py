"""Faults of machines, disks, memory and services: what survives, and what is refused with what to do. docs/faults.md"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from errno import EACCES, EDQUOT, ENOENT, ENOSPC, EROFS
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from safetensors import SafetensorError

from bisae.activations.manifest import CacheError
from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.runtime.errors import ConfigError, Damaged, explained
from bisae.training.module import SAETraining

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`disk(options)`: a file system of its own, or the same one with other options."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        remount = "remount," if place.is_mount() else ""
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"{remount}{options}", "tmpfs", place])
        if done.returncode and not remount:
            pytest.skip("needs the right to mount a file system")
        assert done.returncode == 0
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)  # files may be mapped still


def files(cell: Cell) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cell.folder.iterdir()}


def told_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The process is told to stop (SIGTERM) in that step."""
    original = SAETraining.training_step

    def told(self: SAETraining, *arguments: Any) -> Any:
        if self.trainer.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(SAETraining, "training_step", told)


def test_wandb_that_goes_down_in_the_middle_is_given_up_and_the_job_ends_well(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    class Run:
        id = "aaa"

        def __init__(self) -> None:
            self.logged, self.summary = 0, dict[str, float]()

        def define_metric(self, *_: object, **__: object) -> None: ...

        def log(self, metrics: object) -> None:
            self.logged += 1
            if self.logged > 2:
                raise ConnectionError("broken pipe")

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    (cell,) = train(config("logger=wandb"))
    assert cell.finished and "is given up, the work goes on: ConnectionError: broken pipe" in caplog.text


def test_a_clock_that_jumps_changes_nothing(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (undisturbed,) = train(config(f"runs={tmp_path}/undisturbed"))
    now, jumps = time.time, cycle([0.0, 1e8, -1e8])
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    told_at(monkeypatch, 17)
    with pytest.raises(SystemExit):
        train(config())
    (cell,) = train(config())
    assert files(cell)["sae.safetensors"] == files(undisturbed)["sae.safetensors"]


def test_a_complete_cache_on_a_full_disk_that_cannot_be_written_is_read(
    config: Config, disk: Callable[[str], Path]
) -> None:
    cache = f"cache={disk('size=300m')}"
    train(config(cache))
    disk("size=16m,ro")
    (cell,) = train(config(cache, "sae.seed=1"))
    assert cell.finished


def test_on_a_full_disk_the_job_ends_with_what_to_do_and_goes_on_when_there_is_room(
    config: Config, tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    runs = f"runs={disk('size=240k')}/runs"
    (first,) = train(config(runs, "save_every=1000"))
    before = files(first)
    with pytest.raises(OSError) as full:
        train(config(runs, "sae.seed=1"))
    assert "make room and run the same command again: it goes on" in str(explained(full.value))
    assert files(first) == before and not list((tmp_path / "disk").rglob("*.tmp"))
    disk("size=16m")
    (second,) = train(config(runs, "sae.seed=1"))
    assert second.finished and files(first) == before


@pytest.mark.parametrize("damage", ["a bit", "the end"])
def test_a_damaged_shard_is_refused_by_name_and_earlier_cells_stay(config: Config, tmp_path: Path, damage: str) -> None:
    (first,) = train(config())
    before = files(first)
    shard = next((tmp_path / "cache").rglob("layer02/00001.bin"))
    data = bytearray(shard.read_bytes())
    data[1000] ^= 4
    shard.write_bytes(data if damage == "a bit" else data[:-7])
    with pytest.raises(CacheError) as refused:
        train(config("sae.seed=1"))
    assert str(shard) in str(refused.value) and "Delete the folder" in str(explained(refused.value))
    assert files(first) == before
    (_,) = train(config("sae.seed=1", f"cache={tmp_path}/other"))


def test_a_corpus_file_deleted_during_the_job_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = tmp_path / "en.jsonl"
    text.write_text("".join(f'{{"text": "The {n}th of many sentences about {n % 7} cats."}}\n' for n in range(2000)))
    command = [
        "corpus=jsonl",
        f"corpus.files={{en:{text}}}",
        "activations=rolling",
        "data.epochs=3",
        "data.window_pools=2",
    ]
    monkeypatch.setattr(SAETraining, "on_validation_start", lambda _: text.unlink(missing_ok=True))
    with pytest.raises(ConfigError, match="en.jsonl") as refused:
        train(config(*command))
    assert refused.value.key == "corpus.files"
    with pytest.raises(ConfigError, match=f"^corpus.files={text}: no such file"):
        train(config(*command))


def test_a_damaged_save_is_refused_by_name_and_without_it_the_job_begins_anew(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told_at(monkeypatch, 17)
    with pytest.raises(SystemExit):
        train(config())
    (save,) = tmp_path.rglob("save.ckpt")
    whole = save.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for broken in (flipped, whole[:-100], b""):
        save.write_bytes(broken)
        with pytest.raises(Damaged, match=f"{save} is damaged .*delete it, and the same command begins anew"):
            train(config())
    save.unlink()
    monkeypatch.undo()
    (cell,) = train(config())
    assert cell.finished


def test_too_little_memory_is_refused_with_what_takes_less(config: Config) -> None:
    with pytest.raises(InstantiationException) as refused:
        train(config("sae.latents=4000000000"))
    assert "you tried to allocate" in str(explained(refused.value)) and "fewer SAEs in a job" in str(
        explained(refused.value)
    )


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(ENOSPC, "No space left on device", "runs/x"), "the disk is full"),
        (OSError(EDQUOT, "Disk quota exceeded"), "the disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(EROFS, "Read-only file system", "runs/x"), "'runs/x'); give another folder"),
        (PermissionError(EACCES, "Permission denied", "runs/x"), "cannot be written or read"),
        (MemoryError(), "memory is too small"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nand much more"), "20 GiB); fewer SAEs"),
        (chained(RuntimeError("Error in call to target"), OSError(ENOSPC, "no space")), "the disk is full"),
        (ConfigError("runs", 1, "must be text"), "runs=1: must be text"),
        (OSError(ENOENT, "No such file", "x"), None),
        (RuntimeError("unforeseen"), None),
    ],
)
def test_errors_that_a_user_can_mend_say_how_and_others_stay_errors_of_the_program(
    error: Exception, message: str | None
) -> None:
    found = explained(error)
    assert (message is None) == (found is None) and (message or "") in (found or "")
