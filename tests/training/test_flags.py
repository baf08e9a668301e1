"""Every argument of Lightning's Trainer is classified, and a cell's identity holds what may change it."""

import inspect
import re
from typing import Any

import pytest
from lightning import Trainer

from bisae.runtime.errors import Refused
from bisae.training.flags import FLAGS, set_flags, trainer_identity, trial_flags
from tests.conftest import ROOT


def test_every_argument_of_the_trainer_is_classified_with_its_default() -> None:
    """A new argument of Lightning's fails here until somebody has thought about it."""
    arguments = list(inspect.signature(Trainer.__init__).parameters.values())[1:]
    assert {name: flag.default for name, flag in FLAGS.items()} == {one.name: one.default for one in arguments}
    assert all(flag.remedy for flag in FLAGS.values() if flag.kind == "ours")


def test_the_default_trainer_has_the_identity_it_always_had() -> None:
    for trainer in ({}, {"accelerator": "gpu", "devices": 4, "precision": "32-true", "enable_progress_bar": False}):
        assert trainer_identity(trainer, watched=False) == {"precision": "32-true"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"gradient_clip_val": 1}, {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "norm"}),
        ({"gradient_clip_val": 0}, {}),
        ({"gradient_clip_algorithm": "value"}, {}),  # nothing is clipped
        ({"precision": "bf16"}, {"precision": "bf16-mixed"}),
        ({"precision": 16}, {"precision": "16-mixed"}),
        ({"deterministic": False}, {}),
        ({"val_check_interval": 0.5, "min_epochs": 1}, {}),  # nobody looks
        ({"profiler": "simple", "max_time": "00:01:00:00", "benchmark": True, "detect_anomaly": True}, {}),
        ({"_target_": "lightning.pytorch.Trainer"}, {"_target_": "lightning.Trainer"}),
        ({"limit_train_batches": 1.0, "num_nodes": 1, "logger": False}, {}),
    ],
)
def test_two_ways_to_say_the_same_have_one_identity(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert trainer_identity(one, watched=False) == trainer_identity(other, watched=False)


@pytest.mark.parametrize(
    ("given", "watched"),
    [
        ({"gradient_clip_val": 1.0}, False),
        ({"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, False),
        ({"precision": "16-mixed"}, False),
        ({"deterministic": True}, False),
        ({"deterministic": "warn"}, False),
        ({"_target_": "mine.Trainer"}, False),
        ({"mine": 1}, False),
        ({"val_check_interval": 0.5}, True),
        ({"min_epochs": 1}, True),
    ],
)
def test_what_may_change_a_cell_has_an_identity_of_its_own(given: dict[str, Any], watched: bool) -> None:
    assert trainer_identity(given, watched) != trainer_identity({}, watched)


@pytest.mark.parametrize("value", [True, 1, 3])
def test_a_trial_is_told_by_its_flags(value: Any) -> None:
    assert trial_flags({"fast_dev_run": value, "devices": 1}) == {"fast_dev_run": value}
    assert trial_flags({"limit_train_batches": 1.0, "max_steps": -1, "profiler": "simple"}) == {}
    assert trial_flags({"limit_train_batches": 1}) == {"limit_train_batches": 1}  # one batch, not all


def test_what_another_key_sets_is_refused_with_that_key() -> None:
    for name, key in (("max_epochs", "data.epochs"), ("callbacks", r"\+callbacks\."), ("default_root_dir", "runs")):
        with pytest.raises(Refused, match=key) as refused:
            set_flags({name: 3})
        assert refused.value.field == name


def test_the_page_of_the_flags_has_a_row_for_each_with_its_kind() -> None:
    page = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.M)
    assert dict(rows) == {name: flag.kind for name, flag in FLAGS.items()} and len(rows) == len(FLAGS)
