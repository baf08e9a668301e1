from itertools import product
from time import process_time

import numpy as np
import pytest
from scipy.stats import entropy

from bisae.features.measures.clusters import Clustering, FeatureClusters, GlobalClusters, TokenCounts
from bisae.features.measures.cross import BLOCK, BOTH, NO_WORD, CrossScores, _blocks, cross, word_languages
from bisae.features.measures.monosemanticity import scores

MEANINGS, FEATURES = 300, 200
CLUSTERS = GlobalClusters(np.arange(2 * MEANINGS) % MEANINGS)  # token t of language 0 means what t + MEANINGS does
LANGUAGE = (np.arange(2 * MEANINGS) >= MEANINGS).astype(np.int8)


def world(bilingual: int, seed: int, features: int = FEATURES, meanings: int = MEANINGS) -> TokenCounts:
    """Features with 1 to 6 words in each language: the first `bilingual` of them with the same two meanings in both."""
    random = np.random.default_rng(seed)
    owners, tokens = [], []
    for feature in range(features):
        sides = [random.choice(meanings, random.integers(2, 7), replace=False) for _ in range(2)]
        if feature < bilingual:
            sides[1][:2] = sides[0][:2]
        for side, words in enumerate(sides):
            drawn = words[random.integers(0, len(words), 20)]
            owners += [feature] * 20
            tokens += (drawn + side * MEANINGS).tolist()
    return TokenCounts.of(np.array(owners), np.array(tokens), features)


def tried(counts: TokenCounts, clustering: Clustering = CLUSTERS, least: float = 0.1) -> CrossScores:
    mixed = np.ones(len(counts.offsets) - 1, bool)
    return cross(counts, LANGUAGE, clustering, mixed, least, 0.05)


def test_the_score_is_what_the_cluster_leaves_open_of_the_language_by_the_entropy_of_the_tokens() -> None:
    """dog 3, cat 1, inu 2, desk 2; dog and inu are one cluster."""
    counts = TokenCounts(np.array([0, 4]), np.array([1, 2, 301, 303], np.int32), np.array([3, 1, 2, 2]))
    expected = 5 / 8 * entropy([3, 2]) / entropy([3, 1, 2, 2])
    assert tried(counts).score[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("space", ["global", "average"])
def test_p_is_the_share_of_the_pairs_of_halves_that_score_as_high(space: str) -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(2 * MEANINGS, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clustering = CLUSTERS if space == "global" else FeatureClusters(vectors, "average", 0.4)
    counts = world(5, 2, features=15, meanings=30)
    halves = [
        [
            {int(t): int(c) for t, c in zip(counts.tokens[a:b], counts.counts[a:b], strict=True) if LANGUAGE[t] == side}
            for a, b in zip(counts.offsets, counts.offsets[1:], strict=False)
        ]
        for side in (0, 1)
    ]

    def clusters_of(half: dict[int, int]) -> list[list[int]]:
        tokens = np.array(list(half), np.int32)
        labels = clustering.entry_clusters(TokenCounts(np.array([0, len(tokens)]), tokens, tokens))
        return [tokens[labels == label].tolist() for label in np.unique(labels)]

    def mean_the_same(left: list[int], right: list[int]) -> bool:
        if space == "global":
            return left[0] == right[0] - MEANINGS
        return float(np.mean([1 - vectors[a] @ vectors[b] for a, b in product(left, right)])) <= 0.4

    def score(left: dict[int, int], right: dict[int, int]) -> float:
        """Halves weigh the same; found by joining until nothing can be joined."""
        groups: list[tuple[list[list[int]], list[list[int]]]]
        groups = [([one], []) for one in clusters_of(left)] + [([], [one]) for one in clusters_of(right)]
        while True:
            joins = (
                (a, b)
                for a, b in product(range(len(groups)), repeat=2)
                if a != b and any(mean_the_same(x, y) for x, y in product(groups[a][0], groups[b][1]))
            )
            if (join := next(joins, None)) is None:
                break
            a, b = (groups[number] for number in join)
            groups = [group for number, group in enumerate(groups) if number not in join]
            groups.append((a[0] + b[0], a[1] + b[1]))
        mass = {**{t: c / sum(left.values()) / 2 for t, c in left.items()}}
        mass |= {t: c / sum(right.values()) / 2 for t, c in right.items()}
        open_, shared = 0.0, np.zeros(2)
        for group in groups:
            of_language = np.array([sum(mass[t] for one in side for t in one) for side in group])
            if of_language.all():
                open_ += of_language.sum() * entropy(of_language)
                shared += 2 * of_language
        return open_ / entropy(list(mass.values())) if shared.min() >= 0.3 else 0.0

    table = np.array([[score(left, right) for right in halves[1]] for left in halves[0]])
    found = tried(counts, clustering, least=0.3)
    for feature, own in enumerate(np.diag(table)):
        pairs = np.concatenate([table[feature], np.delete(table[:, feature], feature)])
        assert found.p[feature] == pytest.approx(np.mean(pairs >= own - 1e-9))
    assert 0 < np.mean(found.p < 1) < 1


@pytest.mark.parametrize("seed", range(3))
def test_planted_features_are_found_and_few_others(seed: int) -> None:
    found = tried(world(60, seed)).q <= 0.05
    assert found[:60].mean() > 0.7
    assert found[60:].sum() <= 0.15 * found.sum()  # 5 % are expected


def test_without_a_bridge_nothing_is_found() -> None:
    assert sum(int((tried(world(0, seed)).q <= 0.05).sum()) for seed in range(10)) == 0


def test_by_chance_as_many_are_found_as_the_false_discovery_rate_says() -> None:
    result = tried(world(60, 0))
    found = int((result.q <= 0.05).sum())
    assert 0 < result.null.sum() <= 0.05 * found


def test_no_bilingual_feature_is_without_a_cluster_of_both_languages() -> None:
    counts = world(60, 0)
    for feature in np.flatnonzero(tried(counts).q <= 0.05):
        tokens = counts.tokens[counts.offsets[feature] : counts.offsets[feature + 1]]
        of_language = [set(CLUSTERS.table[tokens[LANGUAGE[tokens] == side]]) for side in (0, 1)]
        assert of_language[0] & of_language[1]


def test_few_features_prove_nothing() -> None:
    assert (tried(world(4, 0, features=4)).q > 0.05).all()


def test_a_feature_without_two_contexts_on_words_in_both_languages_is_not_tested() -> None:
    counts = TokenCounts.of(np.array([0, 0, 0, 1, 1, 1, 1, 2]), np.array([1, 1, 301, 1, 1, 301, 301, 5]), 4)
    result = cross(counts, LANGUAGE, CLUSTERS, np.array([True, True, True, True]), 0.1, 0.05)
    assert np.isnan(result.p).tolist() == np.isnan(result.score).tolist() == [True, False, True, True]
    nothing = cross(counts, LANGUAGE, CLUSTERS, np.zeros(4, bool), 0.1, 0.05)
    assert np.isnan(nothing.q).all() and nothing.both.tolist() == [0, 0, 0, 0]


def test_words_of_both_languages_are_left_out_and_counted() -> None:
    ids = np.array([0] * 10 + [1] * 10 + [2] * 10 + [3] * 2, np.int32)
    language = np.array([0] * 9 + [1] + [0] * 8 + [1] * 2 + [1] * 10 + [1, 0], np.uint8)
    found = word_languages(ids, language, np.array([True, True, True, False, True]))
    assert found.tolist() == [0, BOTH, 1, NO_WORD, 0]
    counts = TokenCounts.of(np.array([0, 0, 0, 0, 0]), np.array([0, 0, 1, 2, 2]), 1)
    result = cross(counts, found, GlobalClusters(np.zeros(5, np.int64)), np.ones(1, bool), 0.1, 0.05)
    assert result.both.tolist() == [1]
    assert result.score[0] == pytest.approx(1)  # two tokens of one meaning, half of the contexts each


def test_features_are_exchanged_with_those_of_like_size() -> None:
    size = np.random.default_rng(0).normal(size=(1000, 2))
    blocks = _blocks(np.arange(1000), size)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(1000))
    assert max(map(len, blocks)) <= BLOCK
    assert np.mean([size[block].std(0).mean() for block in blocks]) < 0.6


@pytest.mark.slow
def test_the_nulls_of_both_scores_take_seconds_for_thousands_of_features() -> None:
    """20 s of one core for 32 768 features; here for an eighth. They have as many tokens as contexts, all unlike."""
    random, features, vocabulary = np.random.default_rng(0), 4096, 10_000
    vectors = random.normal(size=(2000, 128))[random.integers(2000, size=vocabulary)]
    vectors += 0.5 * random.normal(size=vectors.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    clustering = FeatureClusters(vectors.astype(np.float32), "average", 0.62)
    tokens = random.integers(vocabulary, size=50 * features)
    counts = TokenCounts.of(np.repeat(np.arange(features), 50), tokens, features)
    began = process_time()
    scores(counts, clustering, shuffles=100, quantile=0.99, seed=0)
    language = random.integers(2, size=vocabulary).astype(np.int8)
    cross(counts, language, clustering, random.random(features) < 0.3, 0.1, 0.05)
    assert process_time() - began < 2 * 20 / 8  # of a machine half as fast, or busy
