"""Clusters of meaning: tokens whose vectors have a small cosine distance mean the same.

Two clusters are joined as long as their distance is at most a given one. With the method `average` their distance is
the mean over pairs of tokens; with `components` it is that of the two nearest tokens (connected components).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Integer, Num


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """How often each feature has each token: entries `offsets[i]:offsets[i + 1]` are feature i's distinct tokens."""

    offsets: Int64[np.ndarray, " feature_and_one"]
    tokens: Int32[np.ndarray, " entry"]  # ids; in ascending order within a feature, where `of` counts them
    counts: Num[np.ndarray, " entry"]

    @classmethod
    def of(
        cls,
        features: Integer[np.ndarray, " pair"],
        tokens: Integer[np.ndarray, " pair"],
        n_features: int,
        weights: Float64[np.ndarray, " pair"] | None = None,
    ) -> "TokenCounts":
        """Count pairs (feature, token), each as 1 or as its weight."""
        vocabulary = int(tokens.max(initial=0)) + 1
        pairs = features.astype(np.int64) * vocabulary + tokens
        distinct, counts = counted(pairs, weights)
        owners, names = np.divmod(distinct, vocabulary)
        offsets = np.append(0, np.cumsum(np.bincount(owners, minlength=n_features)))
        return cls(offsets, names.astype(np.int32), counts)

    def feature_of_entry(self) -> Int64[np.ndarray, " entry"]:
        """The feature each entry belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


def counted(
    keys: Int64[np.ndarray, " item"], weights: Num[np.ndarray, " item"] | None = None
) -> tuple[Int64[np.ndarray, " key"], Num[np.ndarray, " key"]]:
    """The distinct keys in ascending order, and the sum of each one's weights in the order of items; 1 is one's weight.

    Numbers below 2^63 are sorted several times as fast as `np.unique` tells them apart.
    """
    if weights is None:
        keys = np.sort(keys)
    else:
        order = np.argsort(keys, kind="stable")
        keys, weights = keys[order], weights[order]
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    if weights is None:
        return keys[starts], np.diff(starts, append=len(keys))
    return keys[starts], np.bincount(np.cumsum(new) - 1, weights, len(starts))


METHODS = ("average", "components")


@runtime_checkable
class Clustering(Protocol):
    """Gives each token of each feature a cluster of meaning."""

    def entry_clusters(self, counts: TokenCounts) -> Int64[np.ndarray, " entry"]:
        """The cluster of each entry, comparable only within a feature."""
        ...

    def centres(self, tokens: Int32[np.ndarray, " entry"], cluster: Int64[np.ndarray, " entry"]) -> np.ndarray:
        """What `joined` has to know of the clusters 0, 1, ..., each of at least one token."""
        ...

    def joined(self, left: np.ndarray, right: np.ndarray) -> Bool[np.ndarray, "left right"]:
        """Which clusters, of other tokens, mean the same. Both sides are `centres`."""
        ...


@dataclass(frozen=True, eq=False)
class GlobalClusters:
    """Clusters of the whole vocabulary, the same for every feature."""

    table: Integer[np.ndarray, " vocabulary"]

    def entry_clusters(self, counts: TokenCounts) -> Int64[np.ndarray, " entry"]:
        return self.table[counts.tokens].astype(np.int64)

    def centres(self, tokens: Int32[np.ndarray, " entry"], cluster: Int64[np.ndarray, " entry"]) -> np.ndarray:
        return self.table[tokens[np.unique(cluster, return_index=True)[1]]]

    def joined(self, left: np.ndarray, right: np.ndarray) -> Bool[np.ndarray, "left right"]:
        return left[:, None] == right


@dataclass(frozen=True, eq=False)
class FeatureClusters:
    """Clusters each feature's own tokens by their unit vectors.

    `method` is "average" or "components". `distance` is the largest cosine distance at which clusters are joined.
    """

    vectors: Float32[np.ndarray, "vocabulary dimension"]
    method: str
    distance: float

    def entry_clusters(self, counts: TokenCounts) -> Int64[np.ndarray, " entry"]:
        clusters, sizes = np.arange(len(counts.tokens)), np.diff(counts.offsets)
        for size in np.unique(sizes[sizes > 1]).tolist():  # features of one size are a batch
            starts = counts.offsets[:-1][sizes == size]
            batches = len(starts) * size * max(size, self.vectors.shape[1]) // BATCH + 1
            for start in np.array_split(starts, batches):
                entries = start[:, None] + np.arange(size)
                vectors = self.vectors[counts.tokens[entries]]
                distances = 1 - vectors @ vectors.transpose(0, 2, 1).copy()  # of a view numpy would start threads
                clusters[entries] = start[:, None] + agglomerated(distances, self.method, self.distance)
        return clusters

    def centres(self, tokens: Int32[np.ndarray, " entry"], cluster: Int64[np.ndarray, " entry"]) -> np.ndarray:
        """The mean vectors of the clusters. The product of two is the mean cosine over pairs of their tokens."""
        order = np.argsort(cluster, kind="stable")
        sums = np.add.reduceat(self.vectors[tokens[order]], np.searchsorted(cluster[order], np.unique(cluster)))
        return sums / np.bincount(cluster)[:, None].astype(np.float32)

    def joined(self, left: np.ndarray, right: np.ndarray) -> Bool[np.ndarray, "left right"]:
        """By the mean distance of their tokens, under either method."""
        return left @ right.T >= 1 - self.distance


BATCH = 2**22  # numbers at once


def agglomerated(
    distances: Float32[np.ndarray, "feature token token"], method: str, limit: float
) -> Int64[np.ndarray, "feature token"]:
    """Cluster the tokens of each feature; a cluster is named by the first of its tokens.

    In each round clusters that are each other's nearest are joined. This gives what joining the nearest two first, one
    pair after the other, gives, since by neither method a join brings clusters nearer to others (Bruynooghe 1978). So a
    cluster that is near to no other is done.
    """
    features, tokens, _ = distances.shape
    each = np.arange(tokens)
    distances[:, each, each] = np.inf
    labels = np.tile(each, (features, 1))
    names, sizes, here = labels.copy(), np.ones(labels.shape, np.float32), np.arange(features)
    while True:
        near = distances.min(2) <= limit
        some = np.flatnonzero(near.any(1))
        if not len(some):
            return labels
        these = np.argsort(~near[some], 1, kind="stable")[:, : near.sum(1).max()]
        distances = distances[some[:, None, None], these[:, :, None], these[:, None]]
        distances = np.maximum(distances, distances.transpose(0, 2, 1))  # rounding may tell the two apart
        names, sizes, here = names[some[:, None], these], sizes[some[:, None], these], here[some]
        nearest = distances.argmin(2)
        least = np.take_along_axis(distances, nearest[:, :, None], 2)[:, :, 0]
        place = np.arange(these.shape[1])
        mutual = (np.take_along_axis(nearest, nearest, 1) == place) & (place < nearest) & (least <= limit)
        feature, kept = np.nonzero(mutual)
        gone = nearest[feature, kept]
        joins = np.tile(each, (len(here), 1))
        joins[feature, names[feature, gone]] = names[feature, kept]
        labels[here] = np.take_along_axis(joins, labels[here], 1)
        both = sizes[feature, kept] + sizes[feature, gone]
        share = (sizes[feature, kept] / both)[:, None]
        sizes[feature, kept] = both
        for side in (distances, distances.transpose(0, 2, 1)):
            first, second = side[feature, kept], side[feature, gone]
            mean = share * first + (1 - share) * second
            side[feature, kept] = mean if method == "average" else np.minimum(first, second)
            side[feature, gone] = np.inf
        distances[feature, kept, kept] = np.inf


def global_clusters(
    vectors: Float[np.ndarray, "vocabulary dimension"], distance: float
) -> Int32[np.ndarray, " vocabulary"]:
    """Average linkage over the whole vocabulary. Memory grows with the square of its size.

    Returns the cluster of each item, numbered in the order of first appearance.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import

    labels = fcluster(linkage(vectors, "average", "cosine"), distance, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def centred(
    vectors: Float[np.ndarray, "token dimension"], mean: Float[np.ndarray, " dimension"]
) -> Float32[np.ndarray, "token dimension"]:
    """Subtract the mean vector and scale to unit length. The mean would join most short fragments of words."""
    less = vectors - mean
    less /= np.maximum(np.linalg.norm(less, axis=1, keepdims=True), 1e-12)
    return less.astype(np.float32)
