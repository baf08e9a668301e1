"""What of the Trainer and the optimizer is refused before any work."""

import ast
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from bisae.activations.order import ReadingOrder
from bisae.runtime.errors import Refused
from bisae.training.blocked_adam import BlockedAdam
from bisae.training.trainer import check_optimizer, check_products, make_trainer
from tests.conftest import ROOT

ORDER = ReadingOrder(seed=0, tokens=120, batch=12, block=4, pool_batches=2, window_pools=2)
SETTINGS: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "precision": "32-true",
    "enable_progress_bar": False,
}


def made(folder: Path, **settings: Any) -> Trainer:
    """For two epochs of ten steps."""
    return make_trainer(partial(Trainer, **{**SETTINGS, **settings}), [], 2, ORDER, folder)


def test_the_trainer_is_the_configs_with_one_process_and_as_many_epochs(tmp_path: Path) -> None:
    trainer = made(tmp_path)
    assert trainer.max_epochs == 2 and trainer.world_size == 1 and not trainer.loggers


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_epochs": 5}, "max_epochs"),
        ({"precision": "16-true"}, "precision"),
        ({"strategy": "fsdp"}, "strategy"),
        ({"val_check_interval": 3}, "val_check_interval"),
        ({"val_check_interval": 0.35}, "val_check_interval"),
        ({"val_check_interval": "00:00:10:00"}, "val_check_interval"),
        ({"check_val_every_n_epoch": 3}, "check_val_every_n_epoch"),
        ({"check_val_every_n_epoch": None}, "check_val_every_n_epoch"),
        ({"gradient_clip_val": "much"}, "gradient_clip_val"),
        ({"gradient_clip_val": -1.0}, "gradient_clip_val"),
        ({"accelerator": "tpu"}, "accelerator"),
        ({"devices": 0}, "devices"),
        ({"devices": True}, "devices"),
        ({"devices": "many"}, "devices"),
        ({"devices": 2}, "devices"),  # from Python: no command line that a second process could run
        ({"devices": 5}, "batch"),
    ],
)
def test_what_could_change_results_unseen_is_refused_by_its_field(
    tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(Refused) as refused:
        made(tmp_path, **settings)
    assert refused.value.field == field


@pytest.mark.parametrize("accelerator", ["gpu", "cuda"])
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for devices in (1, -1, "auto"):
        with pytest.raises(Refused, match="no CUDA GPU") as refused:
            made(tmp_path, accelerator=accelerator, devices=devices)
        assert refused.value.field == "accelerator"


class OwnBlocked(torch.optim.SGD):
    """An optimizer of a user's own that forms gradients itself."""

    def take(self, matrix: torch.Tensor, gradient: Any, unit_rows: bool) -> None: ...


def test_an_optimizer_that_forms_gradients_itself_serves_one_device() -> None:
    for optimizer in (partial(BlockedAdam, fused=True), OwnBlocked):
        check_optimizer(optimizer, 1)
        with pytest.raises(Refused, match="forms no gradient that 2 devices could average") as refused:
            check_optimizer(optimizer, 2)
        assert refused.value.field == "optimizer"
        with pytest.raises(Refused, match="optimizer=adam") as refused:
            check_optimizer(optimizer, 1, 0.5)
        assert refused.value.field == "gradient_clip_val"
    check_optimizer(torch.optim.Adam, 2)
    check_optimizer(torch.optim.Adam, 1, 0.5)


def test_settings_an_optimizer_does_not_take_are_refused() -> None:
    with pytest.raises(Refused) as refused:
        check_optimizer(partial(torch.optim.Adam, betas=(2, 3)), 1)
    assert refused.value.field == "partial"


def test_training_asks_no_object_of_bisae_for_its_class() -> None:
    for path in (ROOT / "bisae/training").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
        ours = {name.name for node in froms if str(node.module).startswith("bisae.") for name in node.names}
        ours |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "isinstance":
                asked = {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
                assert not asked & ours, f"{path.name}: {ast.unparse(call)}"


@pytest.fixture
def _products_as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("_products_as_before")
def test_float32_products_are_never_in_tf32_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in ("high", "medium", "highest"):
        torch.set_float32_matmul_precision(asked)
        check_products(asked)
        with pytest.raises(Refused, match="^matmul_precision=.*TF32"):
            check_products("highest" if asked != "highest" else "high")
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # as a library of a user's may do
    with pytest.raises(Refused, match="^matmul_precision=highest: something else .* has allowed TF32"):
        check_products("highest")
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    check_products("highest")  # there is no GPU to be told
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(Refused, match="NVIDIA_TF32_OVERRIDE=1 is in the environment"):
        check_products("highest")
