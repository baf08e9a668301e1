import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.intervention.random_sets import BLOCK, RandomSets, widening


def made(latents: int = 1000, seed: int = 3) -> pd.DataFrame:
    """Every second one dead, activations unlike by orders of magnitude."""
    mass = np.random.default_rng(seed).pareto(1.0, latents)
    classes = np.where(np.arange(latents) % 2, "Mixed", "dead")
    return pd.DataFrame({"class": classes, "mass_en": mass * 0.25, "mass_ja": mass * 0.75})


def alive_set(latents: int, count: int, seed: int = 3) -> np.ndarray:
    alive = np.arange(1, latents, 2)
    return np.isin(np.arange(latents), np.random.default_rng(seed).choice(alive, count, replace=False))


@pytest.mark.parametrize("apart", [True, False])
def test_they_are_living_features_as_many_and_as_active_and_another_for_every_seed(apart: bool) -> None:
    features, like = made(), alive_set(1000, 60)
    mass, sets = features["mass_en"] + features["mass_ja"], RandomSets(features, like)
    one, again, other = (sets.draw(seed, apart) for seed in (0, 0, 1))
    for chosen in (one, other):
        assert chosen.sum() == 60 and not chosen[::2].any()
        assert 0.7 < np.median(mass[chosen]) / np.median(mass[like]) < 1.4
        assert (chosen & like).any() != apart
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_draws_from_all_features_are_what_they_have_always_been() -> None:
    """Rows that are measured stay valid: the same seed draws the same set."""
    features, like = made(200), alive_set(200, 12)
    mass = (features["mass_en"] + features["mass_ja"]).to_numpy()
    order = np.arange(1, 200, 2)[np.argsort(mass[1::2], kind="stable")]
    rng, expected = np.random.default_rng(7), np.zeros(200, bool)
    for block in (order[:50], order[50:]):
        expected[rng.choice(block, np.count_nonzero(like[block]), replace=False)] = True
    assert np.array_equal(RandomSets(features, like).draw(7, apart=False), expected)


@pytest.mark.parametrize(("of_block", "apart"), [(24, True), (25, False)])
def test_a_kind_that_is_half_of_one_block_leaves_too_few_to_draw_from(of_block: int, apart: bool) -> None:
    features = pd.DataFrame({"class": "Mixed", "mass_en": np.arange(4.0 * BLOCK)})
    like = np.zeros(4 * BLOCK, bool)
    like[BLOCK : BLOCK + of_block] = True
    assert RandomSets(features, like).apart == apart


@pytest.mark.parametrize(("count", "differ"), [(0, False), (1, True), (99, True), (100, False)])
def test_nothing_and_all_have_no_other_set(count: int, differ: bool) -> None:
    assert RandomSets(made(200), alive_set(200, count)).differ == differ


@settings(max_examples=25, deadline=None)
@given(latents=st.integers(2, 400), share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_any_kind_has_as_many_random_features(latents: int, share: float, seed: int) -> None:
    features, like = made(latents), alive_set(latents, int(share * (latents // 2)))
    sets = RandomSets(features, like)
    for apart in {False, sets.apart}:
        chosen = sets.draw(seed, apart)
        assert chosen.sum() == like.sum() and not (apart and (chosen & like).any())
    assert not sets.apart or widening([sets]) >= 1


def test_random_sets_of_the_others_are_widened_to_what_a_random_kind_differs_from_them_by() -> None:
    """A property of features is drawn; kinds are drawn at random: what is said of the variance is what it is."""
    rng, features = np.random.default_rng(0), pd.DataFrame({"class": "Mixed", "mass_en": np.full(100, 1.0)})
    value = rng.normal(size=100)
    differences, over_draws = [], []
    for kind in range(400):
        like = np.concatenate([rng.permutation(np.arange(50) < 20) for _ in range(2)])  # 20 of each block
        sets = RandomSets(features, like)
        draws = [value[sets.draw(10 * kind + draw, True)].sum() for draw in range(3)]
        over_draws.append(np.var(draws, ddof=1))
        others = [block[~like[block]] for block in (np.arange(50), np.arange(50, 100))]
        differences.append(value[like].sum() - sum(20 * value[block].mean() for block in others))
    assert widening([sets]) == pytest.approx(5)  # 40 % are of the kind: 1 / (1 - 2 * 0.4)
    assert np.var(differences) / np.mean(over_draws) == pytest.approx(widening([sets]), rel=0.2)
