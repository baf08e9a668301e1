"""Whether the tokens a latent fires on mean one thing: R = 1 - H_semantic / H_token, in nats.

H_token is the entropy of the latent's tokens, H_semantic that of their clusters of meaning: 0 where all tokens mean
different things, 1 where all mean the same. With one token only both entropies are 0 and R is 1 by convention; such
latents are to be counted apart. A latent without tokens has no score.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
from jaxtyping import Float64, Int64, Num
from scipy.special import entr

from bisae.features.measures.clusters import Clustering, TokenCounts


class Scores(NamedTuple):
    """Of each feature; NaN where it has no tokens. `null_*`: of the score, under shuffled meanings."""

    h_token: Float64[np.ndarray, " feature"]
    h_semantic: Float64[np.ndarray, " feature"]
    score: Float64[np.ndarray, " feature"]
    null_mean: Float64[np.ndarray, " feature"]
    null_high: Float64[np.ndarray, " feature"]
    null_above: Float64[np.ndarray, " feature"]  # share of shuffles above the quantile of the others
    distinct: Int64[np.ndarray, " feature"]


def entropy(
    owners: Int64[np.ndarray, " part"], parts: Num[np.ndarray, " part"], features: int
) -> Float64[np.ndarray, " feature"]:
    """Entropy of each feature's parts, of which some may be 0; NaN where it has none."""
    total = np.bincount(owners, parts, features)
    share = parts / np.where(total > 0, total, 1)[owners]
    return np.where(total > 0, np.bincount(owners, entr(share), features), np.nan)


def entropies(
    counts: TokenCounts, clusters: Int64[np.ndarray, " entry"]
) -> tuple[Float64[np.ndarray, " feature"], Float64[np.ndarray, " feature"]]:
    """H_token and H_semantic of each feature, in nats, by each entry's cluster (0 or more); NaN without tokens."""
    features, owners = len(counts.offsets) - 1, counts.feature_of_entry()
    many = int(clusters.max(initial=0)) + 1
    distinct, part = np.unique(owners * many + clusters, return_inverse=True)
    meanings = np.bincount(part, counts.counts, len(distinct))
    return entropy(owners, counts.counts, features), entropy(distinct // many, meanings, features)


HELD_OUT = 20


def ratio(
    h_token: Float64[np.ndarray, " feature"], h_semantic: Float64[np.ndarray, " feature"]
) -> Float64[np.ndarray, " feature"]:
    """R of each feature; 1 where it has one token, NaN where it has none."""
    one = h_token == 0
    return np.where(one, 1.0, np.clip(1 - h_semantic / np.where(one, 1.0, h_token), 0.0, 1.0))


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


def _above_others(null: Float64[np.ndarray, "shuffle feature"], quantile: float) -> Float64[np.ndarray, " feature"]:
    """How often a shuffle stands above the quantile of the others; of the first `HELD_OUT`, which tells enough."""
    if len(null) < 2:
        return np.full(null.shape[1], np.nan)
    held_out = range(min(HELD_OUT, len(null)))
    return np.mean([null[one] > np.quantile(np.delete(null, one, 0), quantile, axis=0) for one in held_out], axis=0)


def scores(counts: TokenCounts, clustering: Clustering, shuffles: int, quantile: float, seed: int) -> Scores:
    """Every feature's entropies, score, and the score's mean and `quantile` over `shuffles` >= 1 shuffled meanings.

    A shuffle gives the tokens that occur each other's meanings: counts and the sizes of clusters over the vocabulary
    stay, what belongs together does not.
    """
    h_token, h_semantic = entropies(counts, clustering.entry_clusters(counts, None))
    random, occurring = np.random.default_rng(seed), np.unique(counts.tokens)
    meaning = np.arange(int(occurring.max(initial=0)) + 1, dtype=np.int32)
    null = np.empty((shuffles, len(h_token)))
    for row in null:
        meaning[occurring] = random.permutation(occurring)
        row[:] = ratio(*entropies(counts, clustering.entry_clusters(counts, meaning)))
    return Scores(
        h_token=h_token,
        h_semantic=h_semantic,
        score=ratio(h_token, h_semantic),
        null_mean=null.mean(0),
        null_high=np.quantile(null, quantile, axis=0),
        null_above=_above_others(null, quantile),
        distinct=np.diff(counts.offsets),
    )
