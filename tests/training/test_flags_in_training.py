"""Flags of the Trainer in real jobs: what is harmless, what resumes, and what a member shares with the cell alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from bisae.cli.train import train
from tests.training.test_callbacks import DIES, Dies, same

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
HARMLESS = [
    *("+trainer.profiler=simple", "+trainer.benchmark=true", "+trainer.enable_model_summary=true"),
    *("+trainer.inference_mode=false", "+trainer.max_time=01:00:00:00", "+trainer.strategy=ddp"),
    *("+trainer.enable_autolog_hparams=false", "+trainer.val_check_interval=0.5", "+trainer.min_epochs=1"),
]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_harmless_flags_change_neither_the_name_nor_a_bit_of_a_cell(config: Config, tmp_path: Path) -> None:
    (plain,) = train(config())
    (flagged,) = train(config(*HARMLESS, f"runs={tmp_path}/flagged"))
    assert flagged.name == plain.name and same(flagged, plain)
    assert flagged.read()["metrics"] == plain.read()["metrics"]


@pytest.mark.parametrize(
    "flags",
    [
        ["+trainer.gradient_clip_val=0.05", "+trainer.val_check_interval=0.25"],
        ["trainer.precision=16-mixed"],
        ["+trainer.deterministic=true"],
    ],
)
def test_a_cell_with_flags_resumes_bit_for_bit_and_equals_the_member_of_a_job(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    (plain,) = train(config("sae.lr=0.002"))
    flags = [*flags, "sae.lr=0.002"]
    (undisturbed,) = train(config(*flags))
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Dies, "at", 31)
        train(config(*flags, DIES, f"runs={tmp_path}/killed"))
    assert list((tmp_path / "killed").rglob("save.ckpt"))
    (resumed,) = train(config(*flags, DIES, f"runs={tmp_path}/killed"))
    assert plain.name != undisturbed.name == resumed.name and same(resumed, undisturbed)
    assert resumed.read()["metrics"] == undisturbed.read()["metrics"]
    together = train(config(*flags, "sae.lr=[0.002,0.02]", f"runs={tmp_path}/together"))
    member = next(cell for cell in together if cell.name == undisturbed.name)
    assert len(together) == 2 and same(member, undisturbed)
