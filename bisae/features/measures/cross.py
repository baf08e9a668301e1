"""Whether a feature's words mean the same in two languages: R_cross = H(language | cluster) / H_token.

A feature's English words and its Japanese words, its two *halves*, are clustered each for itself. A cluster of one half
is then joined with a cluster of the other where they mean the same, and shared from then on. R_cross is 0 where
no cluster is shared. Tokens that are no words, or words of both languages, are left out.

A feature of many words shares some cluster by chance. So each half is put together with the other halves of up to
`BLOCK` Mixed features with as many words, halves weighing the same, and a feature's own pair must be among the best of
its pairs: p is the share of the pairs of its halves, its own among them, that score as high. A pair scores 0 where
less than a given share of either half is in shared clusters. The false discovery rate q counts how many pairs of unlike
features reach each p, as target-decoy searches count decoys. Benjamini and Hochberg's takes p for uniform, and loses
power where it is not (doi:10.1214/18-EJS1441). All pairs are tried, none are drawn: there is no seed.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32, Int64, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import entr

from bisae.features.measures.clusters import Clustering, TokenCounts
from bisae.features.measures.monosemanticity import entropy
from bisae.runtime.threads import in_order

BLOCK = 128  # features whose halves are exchanged
SHARED = 0.1  # a word with more than this share in another language than its own is left out
NO_WORD, BOTH = -1, -2  # in place of a language


class CrossScores(NamedTuple):
    """Of each feature; all but `both` are NaN if it was not tested."""

    score: Float64[np.ndarray, " feature"]  # R_cross
    p: Float64[np.ndarray, " feature"]
    q: Float64[np.ndarray, " feature"]
    null: Float64[np.ndarray, " feature"]  # share of its halves' other pairs that reach the largest p found
    both: Int64[np.ndarray, " feature"]  # contexts left out since their word is of both languages


def word_languages(
    token_ids: Int32[np.ndarray, " token"],
    language: UInt8[np.ndarray, " token"],
    words: Bool[np.ndarray, " vocabulary"],
) -> Int8[np.ndarray, " vocabulary"]:
    """The language, 0 or 1, in which a text has each word; `NO_WORD`, or `BOTH`."""
    second = np.bincount(token_ids, language == 1, len(words))
    share = second / np.maximum(np.bincount(token_ids, minlength=len(words)), 1)
    found = np.where(np.minimum(share, 1 - share) > SHARED, BOTH, share > 0.5)
    return np.where(words, found, NO_WORD).astype(np.int8)


def cross(
    counts: TokenCounts,
    language: Int8[np.ndarray, " vocabulary"],
    clustering: Clustering,
    mixed: Bool[np.ndarray, " feature"],
    least: float,
    level: float,
) -> CrossScores:
    """Test the Mixed features that have a word in two contexts or more of each language.

    Args:
        counts: The tokens of each feature.
        language: The language of each word (`word_languages`).
        clustering: Which tokens mean the same.
        mixed: The Mixed features.
        least: Of each half at least this share must be in shared clusters, 0 to 1.
        level: The false discovery rate at which `null` is counted.
    """
    from scipy.stats import rankdata  # slow to import

    owner, spoken = counts.feature_of_entry(), language[counts.tokens]
    words = np.stack([np.bincount(owner[spoken == side], minlength=len(mixed)) for side in (0, 1)], 1)
    contexts = [np.bincount(owner, counts.counts * (spoken == side), len(mixed)) for side in (0, 1, BOTH)]
    tested = np.flatnonzero(mixed & (contexts[0] > 1) & (contexts[1] > 1))
    score, p, q, null = np.full((4, len(mixed)), np.nan)
    pairs = [np.empty((0, 4))]  # of halves of two features: p, how much a pair counts, the features

    def compared(block: Int64[np.ndarray, " part"]) -> tuple[np.ndarray, np.ndarray]:
        first, second = (_Half.of(counts, np.flatnonzero(spoken == side), block, clustering) for side in (0, 1))
        own, of_pairs = _scores(first, second, clustering, least)
        above = rankdata(-of_pairs, "max", axis=1) + rankdata(-of_pairs, "max", axis=0)  # itself is in both
        return own, (above - 1) / (2 * len(block) - 1)

    blocks = _blocks(tested, np.log(np.maximum(words, 1)))
    for block, (own, share) in zip(blocks, in_order(compared, blocks), strict=True):
        n = len(block)
        score[block], p[block] = own, np.diag(share)
        left, right = np.nonzero((share < 1) & ~np.eye(n, dtype=bool))
        times = np.full(len(left), 1 / max(n - 1, 1))
        pairs.append(np.stack([share[left, right], times, block[left], block[right]], 1))
    by_chance, times, left, right = np.concatenate(pairs).T
    q[tested] = _false_discoveries(p[tested], by_chance, times)
    found = p[tested][q[tested] <= level]
    reached = by_chance <= found.max(initial=0)
    features = np.concatenate([left[reached], right[reached]]).astype(np.int64)
    null[tested] = np.bincount(features, np.tile(times[reached], 2) / 2, len(mixed))[tested]
    return CrossScores(score, p, q, null, contexts[2].astype(np.int64))


class _Half(NamedTuple):
    """The words of one language of some features, clustered within each feature."""

    owner: Int64[np.ndarray, " cluster"]  # the feature of each cluster, as its number among these
    share: Float64[np.ndarray, " cluster"]  # of the half's contexts
    centres: np.ndarray  # of the clusters
    entropy: Float64[np.ndarray, " feature"]  # of the words, in nats
    contexts: Float64[np.ndarray, " feature"]

    @classmethod
    def of(
        cls,
        counts: TokenCounts,
        entries: Int64[np.ndarray, " entry"],
        features: Int64[np.ndarray, " feature"],
        clustering: Clustering,
    ) -> "_Half":
        """The half that the `entries` of `features`, both in ascending order, are."""
        place = np.full(len(counts.offsets) - 1, -1)
        place[features] = np.arange(len(features))
        owner = place[counts.feature_of_entry()[entries]]
        entries, owner = entries[owner >= 0], owner[owner >= 0]
        offsets = np.searchsorted(owner, np.arange(len(features) + 1)).astype(np.int64)
        half = TokenCounts(offsets, counts.tokens[entries], counts.counts[entries])
        clusters = clustering.entry_clusters(half)
        many = int(clusters.max(initial=0)) + 1
        distinct, cluster = np.unique(owner * many + clusters, return_inverse=True)
        contexts = np.bincount(owner, half.counts, len(features))
        return cls(
            owner=distinct // many,
            share=np.bincount(cluster, half.counts / contexts[owner], len(distinct)),
            centres=clustering.centres(half.tokens, cluster),
            entropy=entropy(owner, half.counts, len(features)),
            contexts=contexts,
        )


def _scores(
    left: _Half, right: _Half, clustering: Clustering, least: float
) -> tuple[Float64[np.ndarray, " feature"], Float64[np.ndarray, "feature feature"]]:
    """R_cross of each feature, and of each left half with each right half as if they had as many contexts.

    The latter are 0 where less than `least` of either half is shared.
    """
    n, clusters = len(left.contexts), len(left.owner) + len(right.owner)
    first, second = np.nonzero(clustering.joined(left.centres, right.centres))
    pair = left.owner[first] * n + right.owner[second]
    ends = np.concatenate([pair * clusters + first, pair * clusters + len(left.owner) + second])
    nodes, end = np.unique(ends, return_inverse=True)  # a cluster in a pair of halves
    edges = (np.ones(len(first), bool), (end[: len(first)], end[len(first) :]))
    shared = connected_components(coo_array(edges, shape=(len(nodes), len(nodes))), directed=False)[1]
    number = int(shared.max(initial=-1)) + 1
    share = np.concatenate([left.share, right.share])[nodes % clusters]
    is_left = nodes % clusters < len(left.owner)
    halves = [np.bincount(shared, share * side, number) for side in (is_left, ~is_left)]
    pair = np.zeros(number, np.int64)
    pair[shared] = nodes // clusters

    def ratio(weight: Float64[np.ndarray, "feature feature"]) -> Float64[np.ndarray, "feature feature"]:
        """R_cross where the left half of a pair has the share `weight` of the contexts."""
        of_left = halves[0] * weight.ravel()[pair]
        of_right = halves[1] * (1 - weight.ravel()[pair])
        of_language = np.bincount(pair, entr(of_left) + entr(of_right) - entr(of_left + of_right), n * n)
        words = weight * left.entropy[:, None] + (1 - weight) * right.entropy
        return of_language.reshape(n, n) / (entr(weight) + entr(1 - weight) + words)

    own = np.repeat(left.contexts / (left.contexts + right.contexts), n).reshape(n, n)
    enough = [np.bincount(pair, half, n * n).reshape(n, n) > least - 1e-9 for half in halves]
    equal = np.where(enough[0] & enough[1], ratio(np.full((n, n), 0.5)), 0)
    return np.diag(ratio(own)).copy(), equal.round(12)  # sums of another order are equal


def _false_discoveries(
    p: Float64[np.ndarray, " feature"], by_chance: Float64[np.ndarray, " pair"], times: Float64[np.ndarray, " pair"]
) -> Float64[np.ndarray, " feature"]:
    """For each p, how many features by chance have such a p, for each that has.

    As many as pairs of different features do; one more pair is counted, so that few features prove nothing.
    """
    order = np.argsort(by_chance)
    reach = np.append(0, np.cumsum(times[order])) + 1 / max(len(p) - 1, 1)
    rate = reach[np.searchsorted(by_chance[order], p, "right")] / np.searchsorted(np.sort(p), p, "right")
    down = np.argsort(-p)
    least = np.empty_like(p)
    least[down] = np.minimum.accumulate(np.where(p < 1, rate, 1)[down])
    return least


def _blocks(
    features: Int64[np.ndarray, " feature"], size: Float64[np.ndarray, "any two"]
) -> list[Int64[np.ndarray, " part"]]:
    """Cut features into parts of at most `BLOCK` with like sizes: each time in half where the sizes differ most."""
    if len(features) <= BLOCK:
        return [np.sort(features)] if len(features) else []
    of_these = size[features]
    order = features[np.argsort(of_these[:, np.ptp(of_these, axis=0).argmax()], kind="stable")]
    return [*_blocks(order[: len(order) // 2], size), *_blocks(order[len(order) // 2 :], size)]
