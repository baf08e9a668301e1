"""Real commands on two CPU processes (gloo) that share each batch."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow

# All 64 latents may fire: without a selection, rounding cannot flip one, and weights stay comparable.
SMOOTH = [*TINY, "spread=ddp", "logger=csv", "data.window_pools=2", "layer=[1,2]"]
SMOOTH += ["sae.k=64", "sae.aux_k=8", "sae.dead_after=500", "sae.lr=0.002"]

PARTS = {f"train/{name}" for name in ("loss", "loss_reconstruction", "lr", "gradient_norm")}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("sae.safetensors"))
    return {f"{file.parent.name} {name}": value for file in files for name, value in load_file(file).items()}


def logged(folder: Path) -> dict[str, list[float]]:
    """By cell and metric what a job logged of its reported steps, but not how fast they were."""
    found = {}
    for file in sorted(folder.rglob("metrics.csv")):
        rows = [row for row in csv.DictReader(file.read_text().splitlines()) if row["train/loss"]]
        for name in (name for name in rows[0] if name.startswith("train/") and "tokens_per_s" not in name):
            found[f"{file.parents[1].name} {name}"] = [float(row[name] or 0) for row in rows]
    return found


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return bool(left) and left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `SMOOTH` ran on two ranks."""
    folder = tmp_path_factory.mktemp("two")
    done = run([str(ROOT / "train.py"), *SMOOTH, "trainer.devices=2"], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("topk-") == 2, done.stdout  # rank 0 alone speaks
    return folder


def test_two_ranks_train_what_one_process_trains(two_ranks: Path, tmp_path: Path) -> None:
    done = run([str(ROOT / "train.py"), *SMOOTH, f"cache={two_ranks}/cache"], tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path), weights(two_ranks / "runs")
    assert one.keys() == two.keys() and len(one) == 8
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=2e-6)
    one_log, two_log = logged(tmp_path), logged(two_ranks)
    assert one_log.keys() == two_log.keys() and len({name.split()[1] for name in one_log} & PARTS) == len(PARTS)
    for name in one_log:
        assert two_log[name] == pytest.approx(one_log[name], rel=1e-3, abs=1e-6), name


def test_two_ranks_train_what_one_process_trains_by_another_recipe(two_ranks: Path, tmp_path: Path) -> None:
    recipe = [*SMOOTH, f"cache={two_ranks}/cache", "scheduler=cosine", "optimizer=adamw", "sae.encoder_norm=0.5"]
    recipe += ["+trainer.gradient_clip_val=0.02"]  # of the whole batch's gradient
    for devices in (1, 2):
        done = run([str(ROOT / "train.py"), *recipe, f"trainer.devices={devices}", f"runs=on{devices}"], tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "on1"), weights(tmp_path / "on2")
    assert one.keys() == two.keys() and len(one) == 8
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("store", ["rolling", "streaming"])
def test_the_stores_that_share_the_lm_pass_among_ranks_give_the_same_bits(
    two_ranks: Path, tmp_path: Path, store: str
) -> None:
    done = run([str(ROOT / "train.py"), *SMOOTH, "trainer.devices=2", f"activations={store}"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "runs", two_ranks / "runs")
    assert not list(tmp_path.rglob("*.bin"))  # rolling leaves nothing behind


def test_torchrun_starts_the_same_ranks(two_ranks: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", str(ROOT / "train.py")]
    done = run([*torchrun, *SMOOTH], tmp_path)
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "runs", two_ranks / "runs")
    again = run([*torchrun, *SMOOTH], tmp_path)
    assert again.returncode == 0 and "SAEs trained:" not in again.stdout, again.stderr


def test_a_member_that_fails_on_two_ranks_leaves_the_other_as_it_is(two_ranks: Path, tmp_path: Path) -> None:
    overrides = [*SMOOTH, "layer=1", "sae.lr=[0.002,1e38]", "trainer.devices=2"]
    done = run([str(ROOT / "train.py"), *overrides, f"cache={two_ranks}/cache"], tmp_path)
    assert done.returncode == 1 and "loss is not finite" in done.stderr, done.stderr
    left, both = weights(tmp_path / "runs"), weights(two_ranks / "runs")
    assert len(left) == 4
    for name, value in left.items():
        torch.testing.assert_close(value, both[name])


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def undisturbed(two_ranks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run([str(ROOT / "train.py"), *LONG, f"cache={two_ranks}/cache"], folder).returncode == 0
    yield folder


LONG = [*SMOOTH, "data.epochs=5", "trainer.devices=2"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_stops_the_others_and_the_same_command_ends_as_undisturbed(
    two_ranks: Path, undisturbed: Path, tmp_path: Path, rank: int
) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *LONG, f"cache={two_ranks}/cache"]
    left_by_a_cluster = {"RANK": "0", "LOCAL_RANK": "1", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **left_by_a_cluster}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as first:
        while not list(tmp_path.rglob("save.ckpt")):
            assert first.poll() is None
            time.sleep(0.05)
        ranks = [first.pid, *children(first.pid)]
        assert len(ranks) == 2
        os.kill(ranks[rank], signal.SIGKILL)
        stopped = time.monotonic() + 60
        while running(ranks[1 - rank]):
            assert time.monotonic() < stopped
            time.sleep(0.05)
        _, printed = first.communicate()
    assert first.returncode != 0
    assert ("rank 1 ended with status -9" if rank == 1 else "rank 1") in printed
    assert not weights(tmp_path)
    again = run(command[1:], tmp_path)
    assert again.returncode == 0, again.stderr
    assert same(tmp_path / "runs", undisturbed / "runs")
