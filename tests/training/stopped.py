"""Jobs that an error stops on their way, and cells that must be the same bit for bit."""

from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.training.module import SAETraining


def stop_at(step: int, job: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until an error at the start of a step."""
    original, steps = SAETraining.training_step, iter(range(10**9))

    def stopping(self: SAETraining, *arguments: Any) -> torch.Tensor:
        if next(steps) == step:
            raise RuntimeError("stopped")
        return original(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(SAETraining, "training_step", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            train(job)


def weights(cell: Cell) -> dict[str, torch.Tensor]:
    return load_file(cell.folder / "sae.safetensors")


def assert_same(one: Cell, other: Cell) -> None:
    assert one.name == other.name and one.read()["metrics"] == other.read()["metrics"]
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
