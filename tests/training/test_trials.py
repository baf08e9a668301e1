"""Trials: they train and score as far as they are told, and leave nothing. What stops by time saves and goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cli.train import train
from bisae.runtime.errors import STOPPED

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


def files(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("debug=fdr", "trainer.fast_dev_run=True): step 1, val/fvu"),
        ("debug=limit", "trainer.limit_train_batches=10, trainer.limit_val_batches=2): step 20, val/fvu"),
        ("debug=overfit data.epochs=3", "trainer.overfit_batches=1): step 3, val/fvu"),
        ("debug=profiler", "trainer.max_steps=100): step 48, val/fvu"),
        ("+trainer.max_steps=5", "trainer.max_steps=5): step 5; no cell"),
        ("+trainer.limit_val_batches=1", "trainer.limit_val_batches=1): step 48, val/fvu"),
    ],
)
def test_a_trial_says_what_it_was_and_leaves_no_cell_save_or_run(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, overrides: str, said: str
) -> None:
    with caplog.at_level("INFO", "bisae"):
        assert train(config(*overrides.split(), "logger=wandb", "save_every=1")) == []
    assert said in caplog.text and "no cell, no save and no run is written" in caplog.text
    assert files(tmp_path / "runs") == set()


def test_a_trial_neither_takes_nor_disturbs_a_finished_cell_or_a_save(config: Config, tmp_path: Path) -> None:
    (cell,) = train(config("keep_save=true"))
    before = {file: file.read_bytes() for file in files(tmp_path / "runs")}
    assert any(file.name == "save.ckpt" for file in before)
    assert train(config("debug=limit", "force=true")) == []
    assert {file: file.read_bytes() for file in files(tmp_path / "runs")} == before and cell.finished


def test_max_time_saves_and_stops_and_the_same_command_ends_as_one_without_it(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stopped, caplog.at_level("INFO", "bisae"):
        train(config("+trainer.max_time=00:00:00:00"))
    assert stopped.value.code == STOPPED and "trainer.max_time is over: saved at step 1," in caplog.text
    (cell,) = train(config("+trainer.max_time=00:01:00:00"))
    (undisturbed,) = train(config(f"runs={tmp_path}/undisturbed"))
    assert cell.name == undisturbed.name
    one, other = (load_file(c.folder / "sae.safetensors") for c in (cell, undisturbed))
    assert all(torch.equal(one[name], other[name]) for name in one)
