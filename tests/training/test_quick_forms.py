"""The opt-in forms of the step, in the real command: optimizer=blocked, sae=topk_candidates."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cli.train import train
from tests.conftest import ROOT, TINY, run

QUICK = [*TINY, "optimizer=blocked", "sae=topk_candidates", "sae.candidates=32", "sae.aux_k=8", "sae.dead_after=500"]


def test_blocks_train_the_bits_of_whole_gradients(config: Callable[..., DictConfig]) -> None:
    (plain,), (blocked,) = (train(config("data.epochs=1", f"optimizer={name}")) for name in ("adam", "blocked"))
    assert plain.folder != blocked.folder
    one, other = (load_file(cell.folder / "sae.safetensors") for cell in (plain, blocked))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_killed_job_of_both_forms_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    for folder, point in (("undisturbed", "never"), ("killed", "step")):
        (tmp_path / folder).mkdir()
        killed = run(["-m", "tests.killed", "train", point, "30", *QUICK], tmp_path / folder)
        assert killed.returncode == (-9 if point == "step" else 0), killed.stderr
        done = run([str(ROOT / "train.py"), *QUICK], tmp_path / folder)
        assert done.returncode == 0, done.stderr
    one, other = (next((tmp_path / f).rglob("sae.safetensors")).read_bytes() for f in ("undisturbed", "killed"))
    assert one == other


def test_blocks_are_refused_on_two_devices(tmp_path: Path) -> None:
    done = run([str(ROOT / "train.py"), *TINY, "optimizer=blocked", "trainer.devices=2"], tmp_path)
    assert done.returncode == 1 and "optimizer=adam" in done.stderr, done.stderr
