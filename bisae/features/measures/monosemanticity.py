"""Monosemanticity of a feature: R = 1 - H_semantic / H_token, in nats.

H_token is the entropy of the tokens on which the feature fires, H_semantic that of their clusters of meaning. R is 0 if
all tokens mean different things, and 1 if all mean the same. For a single token both entropies are 0, and R is 1 by
convention: count such features separately. A feature without tokens has no score.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Float64, Int32, Int64, Num
from scipy.special import entr

from bisae.features.measures.clusters import Clustering, TokenCounts, counted
from bisae.runtime.threads import in_order


class Scores(NamedTuple):
    """The scores of each feature; NaN if it has no tokens. `null_*` describe its score with shuffled meanings."""

    h_token: Float64[np.ndarray, " feature"]
    h_semantic: Float64[np.ndarray, " feature"]
    score: Float64[np.ndarray, " feature"]
    null_mean: Float64[np.ndarray, " feature"]
    null_high: Float64[np.ndarray, " feature"]
    null_above: Float64[np.ndarray, " feature"]  # share of the shuffles above the quantile of the other shuffles
    distinct: Int64[np.ndarray, " feature"]


def entropy(
    owners: Int64[np.ndarray, " part"], parts: Num[np.ndarray, " part"], features: int
) -> Float64[np.ndarray, " feature"]:
    """The entropy of each feature in nats. `parts`: counts, also 0, of the features `owners`; NaN without one."""
    total = np.bincount(owners, parts, features)
    share = parts / np.where(total > 0, total, 1)[owners]
    return np.where(total > 0, np.bincount(owners, entr(share), features), np.nan)


def entropies(
    counts: TokenCounts, clusters: Int64[np.ndarray, " entry"]
) -> tuple[Float64[np.ndarray, " feature"], Float64[np.ndarray, " feature"]]:
    """H_token and H_semantic of each feature, in nats; NaN without tokens. `clusters`: of each entry, at least 0."""
    features, owners = len(counts.offsets) - 1, counts.feature_of_entry()
    many = int(clusters.max(initial=0)) + 1
    distinct, meanings = counted(owners * many + clusters, counts.counts)
    return entropy(owners, counts.counts, features), entropy(distinct // many, meanings, features)


HELD_OUT = 20  # shuffles, each compared with all others


def ratio(
    h_token: Float64[np.ndarray, " feature"], h_semantic: Float64[np.ndarray, " feature"]
) -> Float64[np.ndarray, " feature"]:
    """R of each feature: 1 if it has one token, NaN if it has none."""
    single = h_token == 0
    return np.where(single, 1.0, np.clip(1 - h_semantic / np.where(single, 1.0, h_token), 0.0, 1.0))


def monosemanticity(counts: Sequence[SupportsFloat] | np.ndarray, clusters: Sequence[Hashable] | np.ndarray) -> float:
    """Monosemanticity of one feature: R = 1 - H_semantic / H_token.

    Args:
        counts: [token] how often each of the feature's distinct tokens occurs, at least 0.
        clusters: [token] the cluster of meaning of each of these tokens, as any hashable value: equal values are one
            cluster.

    Returns:
        R, from 0 (every token has a meaning of its own) to 1 (all tokens mean the same). A feature with one token has
        R = 1 by convention.

    Raises:
        ValueError: The feature has no tokens, a count is negative or not finite, or `counts` and `clusters` do not
            have the same length.
    """
    number_of_cluster: dict[Hashable, int] = {}  # not np.unique, which would take 1 and "1" for the same
    ids = np.array([number_of_cluster.setdefault(cluster, len(number_of_cluster)) for cluster in clusters], np.int64)
    weights = np.asarray(counts, np.float64)
    if weights.shape != ids.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("one count, finite and at least 0, and one cluster are needed for each token")
    if not weights.sum() > 0:
        raise ValueError("a feature without tokens has no monosemanticity")
    tokens = np.arange(len(weights), dtype=np.int32)
    return float(ratio(*entropies(TokenCounts(np.array([0, len(weights)]), tokens, weights), ids))[0])


def above_others(null: Float64[np.ndarray, "shuffle feature"], quantile: float) -> Float64[np.ndarray, " feature"]:
    """How often a shuffle is above the quantile of the other shuffles, for the first `HELD_OUT` shuffles only."""
    if len(null) < 2:
        return np.full(null.shape[1], np.nan)
    ordered, held_out = np.sort(null, axis=0), null[:HELD_OUT]
    place = quantile * (len(null) - 2)  # among the others
    below = int(place)

    def of_others(number: int) -> Float64[np.ndarray, "shuffle feature"]:
        return np.where(ordered[number] < held_out, ordered[number], ordered[number + 1])

    low, high = of_others(below), of_others(min(below + 1, len(null) - 2))
    share = place - below  # NumPy's way between two numbers, so that equal values stay so
    others_high = low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    return (held_out > others_high).mean(0)


TABLE = 2**20  # terms
ALIKE = 16  # sets of random tokens a shuffle has for each number of tokens


def _shuffled(
    counts: TokenCounts, clustering: Clustering, shuffles: int, seed: int
) -> Iterator[Float64[np.ndarray, " feature"]]:
    """H_semantic of each feature with shuffled meanings: its counts stay, its tokens are others of those that occur.

    These are a random set of as many tokens. In one shuffle up to `ALIKE` sets of a size serve all features with so
    many tokens, since to cluster a set of its own for each would take minutes.
    """
    random, occurring = np.random.default_rng(seed), np.unique(counts.tokens)
    owners, sizes = counts.feature_of_entry(), np.diff(counts.offsets)
    order = np.argsort(sizes, kind="stable")
    number = np.empty_like(sizes)  # of the feature among those with as many tokens
    number[order] = np.arange(len(sizes)) - np.searchsorted(sizes[order], sizes[order])
    distinct, set_of = np.unique(sizes * ALIKE + number % ALIKE, return_inverse=True)
    offsets = np.append(0, np.cumsum(distinct // ALIKE))
    sets = np.repeat(np.arange(len(distinct)), np.diff(offsets))
    entry = np.arange(len(owners)) + (offsets[set_of] - counts.offsets[:-1])[owners]  # in the sets, of each entry
    begin, measured = counts.offsets[owners], _entropy_of(owners, counts.counts, len(sizes))

    def shuffled(tokens: Int32[np.ndarray, " some"]) -> Float64[np.ndarray, " feature"]:
        clusters = clustering.entry_clusters(TokenCounts(offsets, tokens, np.ones_like(tokens)))
        keys = sets * (int(clusters.max(initial=0)) + 1) + clusters
        _, first, cluster = np.unique(keys, return_index=True, return_inverse=True)
        same = (first[cluster] - offsets[sets])[entry] + begin  # first token of a meaning
        return measured(np.bincount(same, counts.counts, len(owners)))

    permutations = (random.permutation(occurring) for _ in range(shuffles))
    yield from in_order(shuffled, (np.resize(tokens, offsets[-1]) for tokens in permutations))


def _entropy_of(
    owners: Int64[np.ndarray, " part"], counts: Num[np.ndarray, " part"], features: int
) -> Callable[[Num[np.ndarray, " part"]], Float64[np.ndarray, " feature"]]:
    """`entropy` of parts that are sums of each feature's `counts`, from a table of its terms."""
    total = np.bincount(owners, counts, features)
    distinct, which = np.unique(total, return_inverse=True)
    many = int(distinct.max(initial=0)) + 1
    if len(distinct) * many > TABLE or counts.dtype.kind != "i":
        return lambda parts: entropy(owners, parts, features)
    terms = entr(np.arange(many) / np.maximum(distinct, 1)[:, None]).ravel()
    begin = (which * many)[owners]

    def measured(parts: Num[np.ndarray, " part"]) -> Float64[np.ndarray, " feature"]:
        return np.where(total > 0, np.bincount(owners, terms[begin + parts.astype(np.int64)], features), np.nan)

    return measured


def scores(counts: TokenCounts, clustering: Clustering, shuffles: int, quantile: float, seed: int) -> Scores:
    """The entropies and the score of every feature, and its score with shuffled meanings (`_shuffled`).

    Args:
        counts: The tokens of each feature.
        clustering: The clusters of meaning.
        shuffles: The number of shuffles, at least 1.
        quantile: `null_high` is this quantile of the shuffled scores.
        seed: Seed of the shuffles.
    """
    h_token, h_semantic = entropies(counts, clustering.entry_clusters(counts))
    null = np.stack([ratio(h_token, h) for h in _shuffled(counts, clustering, shuffles, seed)])
    return Scores(
        h_token=h_token,
        h_semantic=h_semantic,
        score=ratio(h_token, h_semantic),
        null_mean=null.mean(0),
        null_high=np.quantile(null, quantile, axis=0),
        null_above=above_others(null, quantile),
        distinct=np.diff(counts.offsets),
    )
