import numpy as np
import pytest

from bisae.features.codes import Firings
from bisae.features.measures.contextual import Groups, explained, halves, is_contextual

TOKENS, GROUPS = 4000, 30
RNG = np.random.default_rng(0)
GROUP = RNG.integers(GROUPS, size=TOKENS)
HALF = RNG.integers(2, size=TOKENS, dtype=np.uint8)


def firings(fires: np.ndarray) -> Firings:
    """Firings of dense booleans [latent, token]."""
    offsets = np.concatenate([[0], fires.sum(1).cumsum()])
    return Firings(5, offsets, np.nonzero(fires)[1], np.ones(offsets[-1], dtype=np.float32))


def direct(fires: np.ndarray, group: np.ndarray, half: np.ndarray) -> float:
    """The definition, token by token."""
    error = variance = 0.0
    for number in range(2):
        fit, held = half != number, half == number
        overall = fires[fit].mean()
        for fired, name in zip(fires[held], group[held], strict=True):
            same = fires[fit & (group == name)]
            error += (fired - (same.mean() if len(same) else overall)) ** 2
            variance += (fired - overall) ** 2
    return 1 - error / variance


def test_the_closed_form_is_the_definition_with_groups_that_one_half_lacks() -> None:
    tokens = 400
    group, half = GROUP[:tokens].copy(), HALF[:tokens]
    group[np.flatnonzero(half == 0)[:25]] = GROUPS  # only in half 0
    group[np.flatnonzero(half == 1)[:35]] = GROUPS + 1  # only in half 1; GROUPS + 2 is nowhere
    fires = np.random.default_rng(1).random((6, tokens)) < np.array([0.02, 0.1, 0.5, 0.9, 0.2, 0.3])[:, None]
    fires[4] |= group > GROUPS - 5
    fires[5] = group == GROUPS
    fires[5, np.flatnonzero(half == 1)[:35:9]] = True
    found = explained(firings(fires), Groups.of(group, half))
    np.testing.assert_allclose(found, [direct(row, group, half) for row in fires], rtol=1e-9, atol=1e-12)


def test_a_latent_of_one_token_is_explained_and_a_random_one_is_not() -> None:
    fires = np.stack([GROUP == 7, RNG.random(TOKENS) < 0.1, (GROUP == 7) & (RNG.random(TOKENS) < 0.5)])
    found = explained(firings(fires), Groups.of(GROUP, HALF))
    assert found[0] == 1
    assert -0.05 < found[1] < 0.02
    assert 0.4 < found[2] < 0.6


def test_a_latent_of_the_previous_token_is_explained_by_it_alone() -> None:
    previous = np.where(np.arange(TOKENS) % 40 == 0, GROUPS, np.roll(GROUP, 1))  # sequences of 40 tokens
    fires = firings((previous == 3)[None])
    assert explained(fires, Groups.of(previous, HALF))[0] == 1
    assert explained(fires, Groups.of(GROUP, HALF))[0] < 0.02


def test_groups_of_single_tokens_learn_nothing_from_the_other_half() -> None:
    """Fitted and scored on the same tokens it would be 1."""
    fires = firings(RNG.random((1, TOKENS)) < 0.2)
    assert explained(fires, Groups.of(np.arange(TOKENS), HALF))[0] == pytest.approx(0, abs=1e-12)


def test_a_latent_hardly_firing_in_a_half_or_always_firing_has_no_value() -> None:
    fires = np.zeros((4, TOKENS), dtype=bool)
    first, second = (np.flatnonzero(number == HALF) for number in range(2))
    fires[0, first[:50]] = fires[0, second[0]] = True
    fires[1, first[:2]] = fires[1, second[:2]] = True
    fires[2] = True
    found = explained(firings(fires), Groups.of(GROUP, HALF))
    assert np.isnan(found).tolist() == [True, False, True, True]


def test_halves_keep_documents_whole_and_do_not_follow_their_parity() -> None:
    document = np.repeat(np.arange(1000, dtype=np.int32), 3)
    half = halves(document, seed=0)
    assert half.dtype == np.uint8 and (half[::3] == half.reshape(-1, 3).T).all()
    for parity in (0, 1):
        assert half[::3][parity::2].mean() == pytest.approx(0.5, abs=0.08)
    assert (half == halves(document, seed=0)).all() and (half != halves(document, seed=1)).any()


def test_a_contextual_feature_is_explained_by_a_neighbour_and_not_by_its_token() -> None:
    nan = float("nan")
    by_token, by_previous, by_next = np.array(
        [[0.2, 0.9, 0.1], [0.6, 0.9, 0.1], [0.5, 0.9, 0.9], [0.2, 0.1, 0.1], [0.2, nan, 0.3], [nan, 0.9, 0.9]]
    ).T
    found = is_contextual(by_token, by_previous, by_next, token=0.5, context=0.1)
    assert found.tolist() == [True, False, False, False, True, False]
