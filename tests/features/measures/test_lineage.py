import numpy as np
import pytest
import torch

from bisae.features.codes import Firings
from bisae.features.measures import lineage
from bisae.features.measures.lineage import (
    appears,
    coactivation_both_ways,
    coactivation_matches,
    coactivation_null,
    decoder_cosine,
    decoder_matches,
)

TOKENS = 300


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "BLOCK", 7)


def dense(latents: int, seed: int, rate: float = 0.1) -> np.ndarray:
    """Which tokens each latent fires on; latent 0 fires on none."""
    fires = np.random.default_rng(seed).random((latents, TOKENS)) < rate
    fires[0] = False
    return fires


def firings(fires: np.ndarray, first: int = 0) -> Firings:
    offsets = np.concatenate([[0], fires.sum(1).cumsum()])
    return Firings(first, offsets, np.nonzero(fires)[1], np.ones(offsets[-1], dtype=np.float32))


def test_coactivation_is_the_jaccard_index_of_all_pairs() -> None:
    a, b = dense(20, 0), dense(30, 1)
    best, jaccard = coactivation_matches(firings(a), firings(b), TOKENS)
    both = (a[:, None] & b).sum(2)
    expected = both / np.maximum((a[:, None] | b).sum(2), 1)
    np.testing.assert_array_equal(best[1:], expected.argmax(1)[1:])
    np.testing.assert_allclose(jaccard, expected.max(1))


def test_a_latent_finds_itself_among_others() -> None:
    a = dense(20, 0)
    order = np.random.default_rng(2).permutation(20)
    best, jaccard = coactivation_matches(firings(a), firings(a[order]), TOKENS)
    np.testing.assert_array_equal(order[best[1:]], np.arange(1, 20))
    assert (best[0], jaccard[0]) == (-1, 0) and (jaccard[1:] == 1).all()


def test_a_latent_that_fires_where_no_other_does_has_no_match() -> None:
    a, b = np.zeros((2, 2, TOKENS), dtype=bool)
    a[0, :5] = b[1, 5:9] = a[1, 5:7] = True
    best, jaccard = coactivation_matches(firings(a), firings(b), TOKENS)
    assert best.tolist() == [-1, 1] and jaccard.tolist() == [0, 0.5]


def test_of_equal_matches_the_lowest_number_counts_and_blocks_keep_their_numbers() -> None:
    a = dense(3, 0)
    twice = np.stack([a[1], a[2], a[2], a[1]])
    assert coactivation_matches(firings(a), firings(twice, first=100), TOKENS)[0].tolist() == [-1, 100, 101]


@pytest.mark.parametrize("rate", [0.002, 0.01, 0.1])  # of rare latents many are matched equally well, or not at all
def test_one_pass_matches_both_ways_bit_for_bit_as_two_do(rate: float) -> None:
    for seed in range(5):
        a, b = firings(dense(20, seed, rate), first=50), firings(dense(30, seed + 9, rate), first=100)
        found = coactivation_both_ways(a, b, TOKENS)
        alone = coactivation_matches(a, b, TOKENS), coactivation_matches(b, a, TOKENS)
        for (best, jaccard), (expected, of_expected) in zip(found, alone, strict=True):
            assert best.tolist() == expected.tolist() and best.dtype == expected.dtype
            assert jaccard.tobytes() == of_expected.tobytes()


def test_chance_coactivation_breaks_documents_and_keeps_rates() -> None:
    a = dense(20, 0)
    null = coactivation_null(firings(a), firings(a), TOKENS)
    np.testing.assert_allclose(null, coactivation_matches(firings(a), firings(np.roll(a, 150, axis=1)), TOKENS)[1])
    assert null.max() < 0.3
    often = dense(20, 3, rate=0.7)
    assert coactivation_null(firings(often), firings(often), TOKENS)[1:].min() > 0.5


def test_decoder_matches_are_the_nearest_directions() -> None:
    a, b = torch.randn(20, 16), torch.randn(30, 16, requires_grad=True)
    best, cosine = decoder_matches(a, b)
    expected = torch.cosine_similarity(a[:, None], b.detach(), dim=2).max(1)
    np.testing.assert_array_equal(best, expected.indices)
    np.testing.assert_allclose(cosine, expected.values, rtol=1e-5)
    np.testing.assert_allclose(decoder_cosine(a, b, best), cosine, rtol=1e-5)


def test_a_pair_that_is_missing_has_no_cosine() -> None:
    a = torch.eye(3)
    np.testing.assert_array_equal(decoder_cosine(a, a, np.array([0, -1, 1])), [1, np.nan, 0])


def test_a_feature_appears_where_its_match_begins_to_hold_to_the_end() -> None:
    coactivation = np.array(
        [
            [0.5, 0.0, 0.9, 0.0, 0.0],
            [0.6, 0.0, 0.1, 0.0, 0.9],
            [0.7, 0.5, 0.8, 0.0, 0.4],
        ]
    )
    found = appears(np.array([0, 64, 512]), coactivation, 0.5)
    np.testing.assert_array_equal(found, [0, 512, 512, np.nan, np.nan])
    assert np.isnan(appears(np.array([], dtype=np.int64), np.zeros((0, 4)), 0.5)).tolist() == [True] * 4
