"""Callbacks of the config: in a cell's identity unless they say otherwise, exact after a kill, each member alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cells.cell import Cell
from bisae.cli.train import train
from bisae.runtime.errors import ConfigError
from bisae.training.callbacks import LIGHTNINGS, REASONS, callbacks_identity, check_alone

Config = Callable[..., DictConfig]
HERE = __name__
EARLY = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/fvu, min_delta: 0.9}"


class Nudge(Callback):
    """Changes every SAE by a number that grows with its calls."""

    acts_per_member = True
    dies_at = 0

    def __init__(self, by: float) -> None:
        self.by, self.calls = by, 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if trainer.global_step == self.dies_at:
            raise RuntimeError("killed")
        self.calls += 1
        saes: Any = module.saes
        with torch.no_grad():
            for sae in saes:
                sae.b_enc += self.by * self.calls

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls = state_dict["calls"]


class Looks(Callback):
    """Only looks."""

    changes_results = False
    steps = 0

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        type(self).steps = trainer.global_step


class Stops(Looks):
    """Says that it only looks, and stops the training."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        trainer.should_stop = True


class AllowsTF32(Callback):
    """Says that it only looks, and lets a GPU round float32 products."""

    changes_results = False

    def on_train_start(self, *_: object) -> None:
        torch.set_float32_matmul_precision("high")


class Dies(Callback):
    """Ends the job at a step, as a kill does."""

    changes_results = False
    at = 0

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == self.at:
            raise RuntimeError("killed")


DIES = f"+callbacks.dies._target_={HERE}.Dies"
NUDGE = f"+callbacks.mine={{_target_: {HERE}.Nudge, by: 1e-5}}"


def weights(cell: Cell) -> dict[str, torch.Tensor]:
    return load_file(cell.folder / "sae.safetensors")


def same(one: Cell, other: Cell) -> bool:
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_a_callback_is_in_the_identity_by_target_and_arguments_unless_it_says_that_it_changes_nothing() -> None:
    node = {"_target_": f"{HERE}.Nudge", "by": 0.1}
    looks = {"_target_": f"{HERE}.Looks"}
    assert callbacks_identity({"a": node, "b": looks, "c": None}) == [node] == callbacks_identity({"other": node})
    assert callbacks_identity({"a": {"_target_": "lightning.pytorch.callbacks.RichModelSummary"}}) == []
    stop = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/fvu"}
    assert callbacks_identity({"a": stop}) == [stop]


def test_a_callback_of_lightnings_that_cannot_be_used_is_refused_with_the_reason() -> None:
    import lightning.pytorch.callbacks as all_of_them

    others = set(all_of_them.__all__) - set(LIGHTNINGS) - {"Callback", "Checkpoint"}
    assert set(REASONS) <= others  # what has no reason of its own gets the list of those that can be used
    for name in others:
        with pytest.raises(ConfigError, match=REASONS.get(name, "EarlyStopping")) as refused:
            callbacks_identity({"a": {"_target_": f"lightning.pytorch.callbacks.{name}"}})
        assert refused.value.key == "callbacks.a._target_"


def test_a_callback_that_looks_at_the_whole_job_is_refused_beside_several_members() -> None:
    stop = {"stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/fvu"}}
    check_alone(stop, 1)
    check_alone({"mine": {"_target_": f"{HERE}.Nudge"}, "looks": {"_target_": f"{HERE}.Looks"}}, 2)
    with pytest.raises(ConfigError, match=r"callbacks\.stop\._target_=.*train one SAE a job"):
        check_alone(stop, 2)


@pytest.mark.slow
def test_a_callbacks_state_is_in_the_save_and_a_killed_job_ends_as_undisturbed(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (plain,) = train(config())
    (undisturbed,) = train(config(NUDGE))
    assert undisturbed.name != plain.name and not same(undisturbed, plain)
    again = config(NUDGE, f"runs={tmp_path}/killed")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Nudge, "dies_at", 31)
        train(again)
    (resumed,) = train(again)
    assert resumed.name == undisturbed.name and same(resumed, undisturbed)
    member, _ = train(config(NUDGE, "layer=[2,3]", f"runs={tmp_path}/together"))
    assert member.name == undisturbed.name and same(member, undisturbed)


@pytest.mark.slow
def test_one_that_only_looks_changes_no_name_and_one_that_then_stops_the_training_leaves_no_cell(
    config: Config,
) -> None:
    with pytest.raises(RuntimeError, match="no cell is written"):
        train(config(f"+callbacks.mine._target_={HERE}.Stops"))
    with pytest.raises(ConfigError, match="^matmul_precision=highest: something else .* has allowed TF32"):
        train(config(f"+callbacks.mine._target_={HERE}.AllowsTF32"))
    (cell,) = train(config(f"+callbacks.mine._target_={HERE}.Looks"))
    assert Looks.steps == 48 and cell.name == train(config())[0].name


@pytest.mark.slow
def test_early_stopping_ends_the_training_of_a_cell_of_its_own_that_says_how_much_it_has_read(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    with pytest.raises(ConfigError, match=r"callbacks\.stop\.monitor=val_loss: no such metric; there are val/fvu, "):
        train(config(EARLY, "callbacks.stop.monitor=val_loss"))
    six = [EARLY, "+callbacks.stop.patience=1", "data.epochs=6", "scheduler=constant"]
    with caplog.at_level("INFO", "bisae.training.fit"):
        (cell,) = train(config(*six))
    assert "stopped early by a callback, after 12,000 of 36,000 tokens" in caplog.text
    again = config(*six, DIES, f"runs={tmp_path}/killed")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Dies, "at", 31)
        train(again)
    (resumed,) = train(again)
    assert resumed.name == cell.name and same(resumed, cell) and resumed.read()["metrics"] == cell.read()["metrics"]
    (short,) = train(config("data.epochs=2", "scheduler=constant"))
    assert cell.name != short.name and cell.read()["provenance"]["sae_tokens"] == 2 * 6000
    assert same(cell, short)  # a minimal gain of 0.9 is never reached: the second epoch was the last
    (longer,) = train(config(*six, "+trainer.min_epochs=3"))
    assert longer.name != cell.name and longer.read()["provenance"]["sae_tokens"] == 3 * 6000
