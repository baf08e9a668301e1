"""Real commands on several CPU processes (gloo), each of which trains members of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from bisae.cli.train import train
from bisae.runtime.errors import ConfigError
from tests.conftest import ROOT, TINY, run
from tests.training.test_ddp import logged, same

pytestmark = pytest.mark.slow

# Three members; no gradient of theirs exists as a whole, so that no rank could average it.
OTHER = ["layer=1", "sae.k=[4,6,8]", "data.window_pools=2", "snapshots=[3000]", "logger=csv"]
THREE = [*(override for override in TINY if not override.startswith("sae.k=")), *OTHER, "sae.lr=0.002"]
TRAIN = str(ROOT / "train.py")


def metrics(folder: Path) -> dict[str, Any]:
    return {file.parent.name: json.loads(file.read_text())["metrics"] for file in folder.rglob("cell.json")}


def assert_as_alone(found: Path, alone: Path) -> None:
    """The same cells, bit for bit, snapshots too, and nothing left of a job."""
    assert same(found, alone) and metrics(found) == metrics(alone) and len(metrics(found)) == 6
    updates = {json.loads(file.read_text())["provenance"]["computed"]["update"] for file in found.rglob("cell.json")}
    assert updates == {"by blocks of latents"}
    assert [file.name for file in found.glob(".jobs/*/*")] == [".lock"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process ran `THREE`."""
    folder = tmp_path_factory.mktemp("alone")
    done = run([TRAIN, *THREE], folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_ranks_with_members_of_their_own_give_the_bits_and_the_logs_of_one_process(alone: Path, tmp_path: Path) -> None:
    done = run([TRAIN, *THREE, "trainer.devices=2", f"cache={alone}/cache"], tmp_path)
    assert done.returncode == 0 and "each of 2 devices trains SAEs of its own: 2, 1" in done.stdout, done.stderr
    assert_as_alone(tmp_path / "runs", alone / "runs")
    assert logged(tmp_path) == logged(alone) and len({name.split()[0] for name in logged(alone)}) == 3
    again = run([TRAIN, *THREE, "trainer.devices=2", f"cache={alone}/cache"], tmp_path)
    assert again.returncode == 0 and "SAEs trained:" not in again.stdout, again.stderr


def test_torchrun_starts_the_same_ranks_which_share_the_lm_pass(alone: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", TRAIN]
    done = run([*torchrun, *THREE, "activations=streaming", "spread=members"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_as_alone(tmp_path / "runs", alone / "runs")


def test_a_packed_sweep_in_a_slurm_job_starts_the_same_ranks_and_wandb_has_a_run_for_each_member(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"JOB_ID": 7, "JOB_NAME": "saes", "NTASKS": 2, "NNODES": 1, "PROCID": 0, "LOCALID": 0}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    swept = [override.replace("sae.k=[4,6,8]", "sae.k=4,6,8") for override in THREE if override != "logger=csv"]
    done = run([TRAIN, "-m", *swept, "trainer.devices=2", "activations=rolling", "logger=wandb"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_as_alone(tmp_path / "runs", alone / "runs")
    assert not list(tmp_path.rglob("*.bin"))
    about = [json.loads(cell.read_text())["provenance"] for cell in tmp_path.rglob("cell.json")]
    of_members = {cell["wandb_run"] for cell in about if "wandb_run" in cell}  # snapshots have none of their own
    assert len(of_members) == 3
    for run_id in of_members:
        (offline,) = tmp_path.glob(f"runs/wandb/offline-run-*-{run_id}")
        assert list(offline.glob("*.wandb")), (sorted(tmp_path.glob("runs/wandb/*/*")), done.stdout, done.stderr)


def test_a_job_whose_rank_dies_goes_on_with_any_number_of_ranks(alone: Path, tmp_path: Path) -> None:
    command = [*THREE, f"cache={alone}/cache"]
    killed = run(["-m", "tests.killed", "train", "rank-1", "10", *command, "trainer.devices=2"], tmp_path)
    # Lightning looks every five seconds, may see it before a message to the rank fails, and kills the others.
    said = {1: "rank 1 ended with status -9", -9: "terminated with code -9"}
    assert said[killed.returncode] in killed.stderr, killed.stderr

    def files() -> list[str]:
        return sorted(file.name for file in tmp_path.glob("runs/.jobs/*/*.ckpt"))

    assert files() == ["save.7.1.ckpt", "save.ckpt"]
    told = run(["-m", "tests.killed", "train", "told", "12", *command, "trainer.devices=3"], tmp_path)
    assert told.returncode == 143 and told.stdout.count("told to stop: saved at step 19") == 1, told.stderr
    assert files() == ["save.19.1.ckpt", "save.19.2.ckpt", "save.ckpt"]
    ended = run(["-m", "tests.killed", "train", "step", "10", *command], tmp_path)  # by one process, then by two
    assert ended.returncode == -9 and files() == ["save.ckpt"], ended.stderr
    done = run([TRAIN, *command, "trainer.devices=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert_as_alone(tmp_path / "runs", alone / "runs")


def test_a_member_that_fails_leaves_those_of_other_ranks_as_they_are(alone: Path, tmp_path: Path) -> None:
    failing = ["trainer.devices=2", f"cache={alone}/cache", "sae.k=4"]
    done = run([TRAIN, *THREE, *failing, "sae.lr=[0.002,1e38]"], tmp_path)
    assert done.returncode == 1 and "the others are finished:\n" in done.stderr, done.stderr
    assert done.stderr.count("loss is not finite") == 1
    left = {name: values for name, values in metrics(tmp_path / "runs").items() if name in metrics(alone)}
    assert len(left) == 2 and all(metrics(alone)[name] == values for name, values in left.items())
    none = run([TRAIN, *THREE, *failing, "sae.lr=[1e37,1e38]"], tmp_path)
    assert none.returncode == 1 and "no SAE of the job is left:" in none.stderr, none.stderr
    assert none.stderr.count("loss is not finite") == 2


def test_fewer_saes_than_devices_cannot_be_spread(config: Callable[..., DictConfig]) -> None:
    with pytest.raises(ConfigError, match=r"spread=members: there are 1 SAEs .* give trainer.devices=1"):
        train(config("spread=members", "trainer.devices=2"))
