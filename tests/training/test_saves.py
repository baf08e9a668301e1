"""Jobs told to stop (SIGTERM), and run again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from bisae.cli.train import train
from bisae.training.module import SAETraining
from tests.conftest import ROOT, TINY, run
from tests.pretrain.toy import SMALL, toy_corpus

Config = Callable[..., DictConfig]
SPARSE = [*TINY, "save_every=1000"]


@pytest.mark.slow
def test_a_job_told_to_stop_goes_on_from_that_very_step_and_ends_as_undisturbed(config: Config, tmp_path: Path) -> None:
    (undisturbed,) = train(config("save_every=1000", f"runs={tmp_path}/undisturbed"))
    told = run(["-m", "tests.killed", "train", "told", "17", *SPARSE], tmp_path)
    assert told.returncode == 143 and "saved at step 17" in told.stdout and not told.stderr, told.stderr
    (save,) = tmp_path.glob("runs/.jobs/*/save.ckpt")
    assert torch.load(save, weights_only=True)["global_step"] == 17
    assert not list((tmp_path / "runs").rglob("cell.json"))
    again = run([str(ROOT / "train.py"), *SPARSE], tmp_path)
    assert again.returncode == 0, again.stderr
    one, other = (next((tmp_path / f).rglob("sae.safetensors")).read_bytes() for f in ("undisturbed", "runs"))
    assert one == other


def test_told_at_an_epochs_end_it_stops_a_step_later_and_at_the_very_end_it_finishes(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original = SAETraining.training_step

    def told(self: SAETraining, *arguments: Any) -> torch.Tensor:
        if self.trainer.global_step + 1 in (24, 48):  # steps in one epoch, and in both
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    monkeypatch.setattr(SAETraining, "training_step", told)
    with pytest.raises(SystemExit, match="143"):
        train(config("save_every=1000"))
    (save,) = tmp_path.rglob("save.ckpt")
    assert torch.load(save, weights_only=True)["global_step"] == 25
    (cell,) = train(config("save_every=1000"))
    assert cell.finished
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # as before


def test_a_ladder_told_to_stop_goes_on_from_that_step(tmp_path: Path) -> None:
    command = ["pretrain", "told", "5", "name=toy", f"out={tmp_path}", *SMALL, *toy_corpus(tmp_path)]
    told = run(["-m", "tests.killed", *command, "trainer.save_every=1000"], tmp_path)
    assert told.returncode == 143 and "saved at step 5" in told.stdout + told.stderr, told.stderr
    assert torch.load(tmp_path / "toy/last.ckpt", weights_only=True)["global_step"] == 5


@pytest.mark.slow
def test_two_ranks_told_at_once_stop_together(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "data.epochs=200", "trainer.devices=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as job:
        while not list(tmp_path.rglob("save.ckpt")):  # a hanging job meets pytest's time limit
            assert job.poll() is None
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGTERM)  # as SLURM does
        out, errors = job.communicate()
    assert job.returncode == 143 and out.count("told to stop: saved at step") == 1, (out, errors)
    (save,) = tmp_path.rglob("save.ckpt")
    state = torch.load(save, weights_only=True)
    assert f"saved at step {state['global_step']}," in out
