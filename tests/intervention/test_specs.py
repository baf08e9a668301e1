from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bisae.cells.find import FoundCell
from bisae.edits.operation import FeatureEdit
from bisae.edits.steering import Steering
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.specs import PLAIN, EditSettings, InterventionSpec, planned
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from tests.intervention.small_results import cell

CLASSES = ["English"] * 6 + ["Japanese"] * 4 + ["Mixed"] * 4 + ["dead"] * 2
CONTROLS = {"random": 2, "shuffled": True, "self": True}


def features(layer: int = 2) -> LayerFeatures:
    table = pd.DataFrame(
        {
            "class": CLASSES,
            "bilingual": [kind == "Mixed" for kind in CLASSES],
            "aligned": [number == 0 for number in range(16)],
            "maximum": np.linspace(0.1, 1.6, 16),
            "mass_en": np.arange(16.0),
            "mass_ja": np.arange(16.0),
        }
    )
    found: FoundCell = cell(layer)
    return LayerFeatures(found, TopK(d_model=8, latents=16, k=2, seed=layer), f"sae{layer}", table, "rules")


def never(layer: int, chosen: np.ndarray) -> float:
    raise AssertionError("asked for strength")


def settings(operation: EditSettings, kind: Any, limit: int | str | None = None) -> list[InterventionSpec]:
    return planned({2: features()}, ["en", "ja"], operation, kind, CONTROLS, limit, 0)


def test_the_plain_lm_is_first_and_each_kind_has_its_controls_at_each_coefficient() -> None:
    found = settings(EditSettings("add", "donor", [0.5, 1.0]), ["en", "all"])
    assert found[0] is PLAIN
    listed = [(one.coefficient, one.kind, one.control, one.seed) for one in found[1:]]
    en = [("en", "", None), ("en", "random", 0), ("en", "random", 1), ("en", "shuffled", None), ("en", "self", None)]
    whole = [("all", "", None), ("all", "shuffled", None), ("all", "self", None)]  # all at random are all
    assert [one.generates for one in found[1:6]] == [True, True, False, True, True]
    assert listed == [(c, *one) for c in (0.5, 1.0) for one in (*en, *whole)]
    assert [one.alone for one in found[1:6]] == [False, False, False, False, True]


@pytest.mark.parametrize("coefficient", [float("nan"), float("inf")])
def test_a_coefficient_that_is_no_number_is_refused_and_not_taken_for_none(coefficient: float) -> None:
    with pytest.raises(Refused, match="^coefficient=(nan|inf): must be finite"):
        EditSettings("add", "donor", [0.5, coefficient])


@pytest.mark.parametrize("mode", ["ablate", "scale", "steer"])
def test_without_a_donor_random_is_the_only_control_and_is_taken_as_it_is(mode: str) -> None:
    found = settings(EditSettings(mode, "donor", [2.0]), ["en"])
    assert [one.control for one in found] == ["", "", "random", "random"]
    assert all(one.alone and one.norm == "" and one.like is None for one in found[1:])
    assert np.isnan([one.coefficient for one in found[1:]]).all() == (mode == "ablate")


def test_random_features_are_as_many_and_added_as_strongly() -> None:
    _, en, random, *_ = settings(EditSettings("add", "donor", [0.5]), ["en"])
    assert random.chosen[2].sum() == en.chosen[2].sum() == 6 and random.like is not None

    def strength(layer: int, chosen: np.ndarray) -> float:
        return 3.0 if (chosen == en.chosen[2]).all() else 2.0

    (edit,) = random.edits({2: features()}, strength).values()
    assert isinstance(edit, FeatureEdit) and edit.coefficient == pytest.approx(0.5 * 3 / 2)
    (edit,) = random.edits({2: features()}, lambda layer, chosen: 0.0).values()  # nothing to be made stronger
    assert isinstance(edit, FeatureEdit) and edit.coefficient == 0.5


@pytest.mark.parametrize("kind", [[], 17, [17], [[]], [[3.5]], [["a"]], None, [True]])
def test_what_is_no_kind_is_refused(kind: Any) -> None:
    with pytest.raises(Refused, match="^kind="):
        settings(EditSettings("add", "donor", [0.5]), kind)


def test_steering_is_towards_each_feature_at_its_maximum() -> None:
    (_, steered, *_) = settings(EditSettings("steer", "donor", [2.0]), [[3, 5]])
    one = features()
    (edit,) = steered.edits({2: one}, never).values()
    assert steered.kind == "ids:3,5" and isinstance(edit, Steering)
    torch.testing.assert_close(edit.direction, 2 * (0.4 * one.sae.W_dec[3] + 0.6 * one.sae.W_dec[5]))


def test_kinds_can_be_cut_to_the_smallest_or_to_a_number() -> None:
    for limit, count in (("equal", 4), (3, 3)):
        found = settings(EditSettings("add", "donor", [0.5]), ["en", "ja", "mixed"], limit)
        assert {int(one.chosen[2].sum()) for one in found[1:]} == {count} and found[1].limit == f"{count} (draw 0)"
        whole = settings(EditSettings("add", "donor", [0.5]), ["en"])[1].chosen[2]
        assert (whole | ~found[1].chosen[2]).all()
    none = features()
    none.table["bilingual"] = False
    edit = EditSettings("add", "donor", [0.5])
    found = planned({2: none}, ["en", "ja"], edit, ["bi", "en", "mixed"], CONTROLS, "equal", 0)
    counts = {one.kind: int(one.chosen[2].sum()) for one in found[1:] if not one.control}
    assert counts == {"bi": 0, "en": 4, "mixed": 4} and found[1].limit == "4 (draw 0)"
    refused: list[Any] = [7, -1, "some", 2.5, True]
    for limit in refused:
        with pytest.raises(Refused, match=f"^features={limit}: must be"):
            settings(EditSettings("add", "donor", [0.5]), ["en"], limit)


def test_random_features_are_drawn_apart_from_a_kind_that_leaves_enough() -> None:
    en, mixed = (settings(EditSettings("add", "donor", [0.5]), [kind])[1:4] for kind in ("en", "mixed"))
    for kind, *draws in (en, mixed):  # 6 and 4 of 14
        assert {one.drawn_from for one in draws} == {"others"} and kind.drawn_from == ""
        assert not any((one.chosen[2] & kind.chosen[2]).any() for one in draws)
    assert en[1].widening > mixed[1].widening > 1
    layers = {1: features(1), 2: features()}
    layers[1].table.loc[:8, "class"] = "English"  # 9 of 14: too many at one of the layers
    both = planned(layers, ["en", "ja"], EditSettings("add", "donor", [0.5]), ["en"], CONTROLS, None, 0)[2:4]
    assert {(one.drawn_from, one.widening) for one in both} == {("all", 1.0)}


def test_a_kind_without_features_or_with_all_of_them_has_no_random_control() -> None:
    every = [number for number in range(16) if CLASSES[number] != "dead"]
    for kind in (["fr"], [every]):
        of = planned({2: features()}, ["en", "ja", "fr"], EditSettings("add", "donor", [0.5]), kind, CONTROLS, None, 0)
        assert [one.control for one in of] == ["", "", "shuffled", "self"]


def test_numbered_features_of_several_layers_are_refused() -> None:
    layers = {1: features(1), 2: features()}
    operation = EditSettings("add", "donor", [0.5])
    with pytest.raises(Refused, match="of one layer"):
        planned(layers, ["en", "ja"], operation, [[3]], CONTROLS, None, 0)
    both = planned(layers, ["en", "ja"], operation, ["en"], CONTROLS, None, 0)[1]
    assert set(both.edits(layers, never)) == {1, 2}


def test_unknown_modes_and_norms_are_refused() -> None:
    with pytest.raises(Refused, match="^mode=multiply: choose one of add, replace, ablate, scale, steer"):
        EditSettings("multiply", "donor", [1.0])
    with pytest.raises(Refused, match="^norm=both: choose one of donor, recipient"):
        EditSettings("add", "both", [1.0])
