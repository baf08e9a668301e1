"""Scores of labels: the counts on small cases; a whole analysis is in tests/planted/test_scores.py."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bisae.analysis.precision_recall import Items, best, compared, measured, planted_labels
from bisae.planted.truth import KINDS, SHARED
from tests.planted.worlds import model


def test_labels_follow_from_the_tokens_of_each_kind(tmp_path: Path) -> None:
    truth = model(tmp_path).truth()
    labels = planted_labels(truth)
    names = ("English", "Japanese")
    for feature, kind in enumerate(KINDS[number] for number in truth.kind):
        tokens = truth.tokens_of(feature)
        languages = {int(number) for number in truth.token_language[tokens]}
        one = languages < {0, 1}
        has = {name for name, values in labels.items() if values[feature]}
        expected = {names[languages.pop()]} if one else {"Mixed"}
        expected |= {"bilingual", "aligned"} if kind == "meaning" else set()
        expected |= {"contextual"} if kind == "contextual" else set()
        expected |= {"single_token"} if kind == "single" else set()
        assert has == expected, kind
    assert labels["single_token"][
        [n for n in range(truth.features) if SHARED in truth.token_language[truth.tokens_of(n)]]
    ].all()


def test_a_latent_and_a_feature_are_one_item_if_their_directions_agree() -> None:
    cosine = np.array([[0.95, 0.91, 0.1], [0.96, 0.2, 0.1], [0.1, 0.1, 0.89], [0.99, 0.99, 0.99]])
    present, alive = np.array([True, True, True, False]), np.array([True, True, True])
    items = Items.of(cosine, present, alive)
    assert list(zip(*items, strict=True)) == [(1, 0), (0, 1), (-1, 2), (2, -1)]
    assert items.both.tolist() == [True, True, False, False]
    assert items.of_latents(np.array([True, False, True])).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(items.of_features(np.array([1.0, 2, 3, 4])), [1, 2, 3, np.nan])
    nothing = Items.of(cosine, present, ~alive)
    assert nothing.latent.tolist() == [-1, -1, -1] and nothing.feature.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rungs", [False, True])
def test_chance_is_the_mean_over_shuffles_of_the_truth(rungs: bool) -> None:
    random = np.random.default_rng(0)
    if rungs:
        found, true = (random.integers(0, 5, 40).astype(float) for _ in range(2))
        found[:5], true[30:] = np.nan, np.nan
    else:
        found, true = random.random(40) < 0.5, random.random(40) < 0.3
    counts = compared(found, true)
    shuffled = [compared(found, random.permutation(true))["right"] for _ in range(4000)]
    assert counts["chance"] == pytest.approx(np.mean(shuffled), rel=0.02)
    shares = measured(counts)
    assert shares["precision_null"] == pytest.approx(np.mean(shuffled) / counts["found"], rel=0.02)
    assert 1 / shares["f1"] == pytest.approx((1 / shares["precision"] + 1 / shares["recall"]) / 2)


def test_a_rung_beside_the_true_one_is_right_and_a_missing_one_is_not() -> None:
    counts = compared(np.array([0.0, 2, 3, np.nan, 4]), np.array([1.0, 2, 5, 3, np.nan]))
    assert {name: counts[name] for name in ("items", "found", "true", "right")} == {
        "items": 5,
        "found": 4,
        "true": 4,
        "right": 2,
    }


def test_nothing_to_find_has_no_recall_and_nothing_found_no_precision() -> None:
    none, some = np.zeros(3, bool), np.array([True, False, False])
    assert np.isnan(measured(compared(some, none))["recall"]) and np.isnan(measured(compared(some, none))["f1"])
    assert np.isnan(measured(compared(none, some))["precision"]) and measured(compared(none, some))["f1"] == 0


def test_the_best_threshold_is_of_the_pooled_counts_and_nearest_to_the_rules_own() -> None:
    rule = {"level": "oracle", "label": "Mixed", "rule": "contexts", "key": "threshold"}
    counts = {"items": 10, "found": 4, "true": 4, "right": 2, "chance": 1.6}
    labels = pd.DataFrame([rule | {"threshold": 0.9} | counts] * 2)
    rows = [(0.5, 3), (0.7, 3), (0.9, 2)]
    curves = pd.DataFrame([rule | {"threshold": t} | counts | {"right": right} for t, right in rows] * 2)
    (found,) = best(labels, curves).to_dict("records")
    assert (found["right"], found["found"], found["best_threshold"]) == (4, 8, 0.7)
    assert found["f1"] == 0.5 and found["best_f1"] == 0.75
