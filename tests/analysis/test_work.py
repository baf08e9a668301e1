import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from bisae.analysis.work import warn_of_same_weights
from bisae.cells import FoundCell


def cell(step: int, identity: Mapping[str, object], model: str = "mine") -> FoundCell:
    return FoundCell(Path(), model, step, 2, "topk", "0", identity, {}, {})


def test_steps_of_one_lm_with_the_same_weights_are_named(caplog: pytest.LogCaptureFixture) -> None:
    a, b = {"activations": {"weights": "a"}}, {"activations": {"weights": "b"}}
    cells = [cell(0, b), cell(20, a), cell(10, a), cell(10, a), cell(30, {}), cell(40, {}), cell(5, b, "other")]
    with caplog.at_level(logging.WARNING):
        warn_of_same_weights(cells)
    (said,) = caplog.messages
    assert said.startswith("mine: steps [10, 20] have the same weights")
