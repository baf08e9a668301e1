import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from bisae.intervention.random_sets import RandomSets, widening
from bisae.metrics.intervals import document_weights
from bisae.report.interventions.verdicts import Change, Verdict, against, against_random, beside_random, reach

FEATURES, BLOCKS, DOCUMENTS, DRAWS = 200, 4, 60, 20
WEIGHTS = document_weights(DOCUMENTS, 100, 0).astype(float)


def simulated(of_block: int, better: float, seed: int) -> Verdict:
    """A kind of so many features of each 50, drawn at random, each `better` by so much than the others; what features
    do adds up, and differs from document to document."""
    rng = np.random.default_rng(seed)
    kind = np.concatenate([rng.permutation(np.arange(50) < of_block) for _ in range(BLOCKS)])
    features = pd.DataFrame({"class": "Mixed", "mass_en": np.ones(FEATURES)})  # as active: blocks are in their order
    sets = RandomSets(features, kind)
    drawn = [sets.draw(seed * DRAWS + draw, sets.apart) for draw in range(DRAWS)]
    effect = rng.normal(size=FEATURES) + better * kind
    of_documents = effect[:, None] + 3 * rng.normal(size=(FEATURES, DOCUMENTS))
    resampled = of_documents @ WEIGHTS.T / WEIGHTS.sum(1)
    changes = [Change(float(of_documents[one].sum(0).mean()), resampled[one].sum(0)) for one in (kind, *drawn)]
    return against_random(changes[0], changes[1:], widening([sets]) if sets.apart else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("of_block", [3, 20, 30])
def test_of_an_ordinary_kind_something_is_said_at_most_as_often_as_is_promised(of_block: int) -> None:
    """Few of the features, many of them, and so many that draws hold them too."""
    said = [simulated(of_block, 0.0, seed).holds for seed in range(300)]
    wrong = np.mean([one != "undecided" for one in said])
    assert wrong < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(("of_block", "better"), [(3, 2.0), (20, 2.0), (30, 2.0)])
def test_a_kind_that_is_better_is_found(of_block: int, better: float) -> None:
    assert np.mean([simulated(of_block, better, seed).holds == "yes" for seed in range(15)]) > 0.8
    assert np.mean([simulated(of_block, -better, seed).holds == "no" for seed in range(15)]) > 0.8


def test_the_interval_is_students_over_draws_and_texts() -> None:
    rng = np.random.default_rng(0)
    first, *draws = (Change(value, value + rng.normal(size=300)) for value in (1.0, 0.3, 0.1, 1.2, -0.4))
    found = against_random(first, draws, widening=1.5)
    over_texts = np.var(first.samples - np.mean([draw.samples for draw in draws], axis=0), ddof=1)
    s = float(np.std([0.3, 0.1, 1.2, -0.4], ddof=1))
    far = t.ppf(0.975, 3) * np.sqrt(s**2 * (1.5 + 1 / 4) + over_texts)
    assert found == pytest.approx((0.7, 0.7 - far, 0.7 + far, 4, s, 2)) and found.holds == "undecided"
    assert far == reach(s, 4, 1.5, over_texts)


def test_draws_that_are_all_far_below_leave_no_doubt_but_one_draw_decides_nothing() -> None:
    first, draw = Change(5.0, np.full(9, 5.0)), Change(0.0, np.zeros(9))
    draws = [Change(value, np.full(9, value)) for value in (0.0, 0.1, -0.1)]
    assert against_random(first, draws, 1.0).holds == "yes" and against_random(first, draws, 1.0).rank == 1
    assert against_random(draw, [Change(5 - one.value, 5 - one.samples) for one in draws], 1.0).holds == "no"
    lone = against_random(first, [draw], 1.0)
    assert lone.holds == "undecided" and lone.rank == 1 and np.isnan([lone.low, lone.high, lone.s]).all()
    assert beside_random(lone.low, lone.high) == "undecided"


def test_where_nothing_was_resampled_nothing_is_said() -> None:
    unknown = np.full(1, np.nan)
    draws = [Change(value, unknown) for value in (0.0, 0.1)]
    assert against_random(Change(5.0, unknown), draws, 1.0).holds == "undecided"
    assert against(Change(5.0, unknown), Change(1.0, unknown)).holds == "undecided"


def test_of_two_given_sets_only_texts_are_drawn() -> None:
    shared = np.random.default_rng(0).normal(size=400)
    found = against(Change(1.0, 1.0 + shared), Change(0.9, 0.9 + shared))
    assert found[:3] == pytest.approx((0.1, 0.1, 0.1)) and found.holds == "yes" and found.draws == 0
