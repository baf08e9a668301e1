import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisae.features.measures.clusters import GlobalClusters, TokenCounts
from bisae.features.measures.monosemanticity import above_others, entropies, monosemanticity, ratio, scores


@pytest.mark.parametrize(
    ("clusters", "score"), [([0, 1, 2], 0.0), ([5, 5, 1], 1 - math.log(27 / 4) / math.log(27)), ([4, 4, 4], 1.0)]
)
def test_three_tokens_in_three_two_and_one_clusters(clusters: list[int], score: float) -> None:
    assert monosemanticity([1, 1, 1], clusters) == pytest.approx(score, abs=1e-15)
    assert monosemanticity([1, 1, 1], [5, 5, 1]) == pytest.approx(0.4206, abs=5e-5)


def test_one_token_means_one_thing_and_none_means_nothing() -> None:
    assert monosemanticity([7], [3]) == monosemanticity([7, 0], [3, 4]) == 1.0
    for nothing in ([], [0, 0]):
        with pytest.raises(ValueError, match="without tokens"):
            monosemanticity(nothing, [0] * len(nothing))
    for counts, clusters in (([1, 2], [0]), ([1, -1], [0, 0]), ([1, math.nan], [0, 0]), ([1, math.inf], [0, 0])):
        with pytest.raises(ValueError, match="one count"):
            monosemanticity(counts, clusters)


def test_a_cluster_may_be_any_hashable_value() -> None:
    expected = monosemanticity([3, 2, 1], [0, 0, 1])
    for same, other in (("animal", "plant"), ((0, 1), (1, 0)), (1, "1"), (None, frozenset({1}))):
        assert monosemanticity([3, 2, 1], [same, same, other]) == expected
    assert monosemanticity(np.array([3, 2, 1]), np.array([7, 7, 5])) == expected


def test_token_counts_are_sparse_and_in_order() -> None:
    counts = TokenCounts.of(np.array([2, 0, 2, 2, 0]), np.array([5, 9, 1, 5, 3]), 4)
    assert counts.offsets.tolist() == [0, 2, 2, 4, 4] and counts.feature_of_entry().tolist() == [0, 0, 2, 2]
    assert counts.tokens.tolist() == [3, 9, 1, 5] and counts.counts.tolist() == [1, 1, 1, 2]
    weighed = TokenCounts.of(np.array([0, 0]), np.array([4, 4]), 1, np.array([0.5, 0.25]))
    assert weighed.counts.tolist() == [0.75]
    assert TokenCounts.of(np.array([], int), np.array([], int), 2).offsets.tolist() == [0, 0, 0]


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60)


@given(pairs, st.lists(st.integers(0, 3), min_size=10, max_size=10))
def test_all_features_at_once_score_as_each_alone(found: list[tuple[int, int]], table: list[int]) -> None:
    features, tokens = np.array(found).T
    counts = TokenCounts.of(features, tokens, 5)
    clustering = GlobalClusters(np.array(table, np.int32))
    result = scores(counts, clustering, shuffles=2, quantile=0.5, seed=0)
    for feature in range(5):
        own, many = np.unique(tokens[features == feature], return_counts=True)
        assert result.distinct[feature] == len(own)
        if len(own):
            meanings = clustering.table[own]
            assert result.score[feature] == pytest.approx(monosemanticity(many, meanings), abs=1e-12)
            mass = np.array([many[meanings == meaning].sum() for meaning in set(meanings)]) / many.sum()
            assert result.h_semantic[feature] == pytest.approx(-(mass * np.log(mass)).sum(), abs=1e-12)
        else:
            assert np.isnan([field[feature] for field in result[:5]]).all()


def test_shuffled_meanings_know_nothing_of_what_belongs_together() -> None:
    random = np.random.default_rng(0)
    features = np.repeat(np.arange(200), 40)
    tokens = random.integers(0, 10, len(features)) + 10 * (features % 30)  # a feature's tokens mean one thing
    counts = TokenCounts.of(features, tokens, 201)
    clustering = GlobalClusters(np.arange(300) // 10)
    result = scores(counts, clustering, shuffles=20, quantile=0.95, seed=1)
    assert np.all(result.score[:200] == 1) and np.all(result.null_high[:200] < 0.5)
    assert 0 < result.null_mean[:200].mean() < 0.1 and np.all(result.null_mean[:200] <= result.null_high[:200])
    again = scores(counts, clustering, shuffles=20, quantile=0.95, seed=1)
    other = scores(counts, clustering, shuffles=20, quantile=0.95, seed=2)
    assert np.array_equal(again.null_mean, result.null_mean, equal_nan=True)
    assert not np.array_equal(other.null_mean, result.null_mean, equal_nan=True)


def test_features_of_random_tokens_score_as_under_shuffled_meanings() -> None:
    random = np.random.default_rng(0)
    features = np.repeat(np.arange(400), 30)
    counts = TokenCounts.of(features, random.integers(0, 300, len(features)), 400)
    result = scores(counts, GlobalClusters(np.arange(300) // 10), shuffles=40, quantile=0.95, seed=0)
    assert result.score.mean() == pytest.approx(result.null_mean.mean(), rel=0.1)
    assert 0.02 < np.mean(result.score > result.null_high) < 0.09


def test_a_shuffle_gives_a_feature_as_many_other_tokens_of_those_that_occur() -> None:
    class Seen(GlobalClusters):
        sets: list[list[int]] = []

        def entry_clusters(self, counts: TokenCounts) -> np.ndarray:
            self.sets += [counts.tokens[a:b].tolist() for a, b in zip(counts.offsets, counts.offsets[1:], strict=False)]
            return super().entry_clusters(counts)

    counts = TokenCounts.of(np.array([0, 0, 1, 1, 1]), np.array([8, 3, 3, 5, 8]), 3)
    scores(counts, Seen(np.zeros(9, np.int64)), shuffles=9, quantile=0.5, seed=0)
    assert Seen.sets[:3] == [[3, 8], [3, 5, 8], []]  # as they are
    assert [sorted(map(len, Seen.sets[n : n + 3])) for n in range(3, 30, 3)] == [[0, 2, 3]] * 9
    assert all(len(set(tokens)) == len(tokens) and set(tokens) <= {3, 5, 8} for tokens in Seen.sets)
    assert len({tuple(tokens) for tokens in Seen.sets}) > 4


def test_shuffled_scores_are_distributed_as_under_permutations_of_all_meanings() -> None:
    random = np.random.default_rng(0)
    features = np.repeat(np.arange(60), 12)
    counts = TokenCounts.of(features, random.integers(0, 40, len(features)), 60)
    table = np.arange(40) // 4
    found = scores(counts, GlobalClusters(table), shuffles=1000, quantile=0.9, seed=0)
    permuted = np.stack([ratio(*entropies(counts, random.permutation(table)[counts.tokens])) for _ in range(1000)])
    np.testing.assert_allclose(found.null_mean, permuted.mean(0), atol=5 * permuted.std(0).max() / 1000**0.5 * 2**0.5)
    assert np.abs(found.null_high - np.quantile(permuted, 0.9, axis=0)).mean() < 0.01


def test_entropies_are_in_nats() -> None:
    counts = TokenCounts.of(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    h_token, h_semantic = entropies(counts, np.array([0, 1, 0]))
    assert h_token.tolist() == h_semantic.tolist() == [pytest.approx(math.log(2)), 0]


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_a_shuffle_is_compared_with_the_quantile_of_all_others(quantile: float) -> None:
    random = np.random.default_rng(3)
    null = random.integers(0, 9, (30, 200)) / 8  # many are equal
    null[:, 7] = np.nan
    above = [null[one] > np.quantile(np.delete(null, one, 0), quantile, axis=0) for one in range(20)]
    assert np.array_equal(above_others(null, quantile), np.mean(above, axis=0))
