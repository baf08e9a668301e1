"""Clusters of meaning: tokens whose vectors have a small cosine distance mean the same.

Two clusters are joined as long as their distance is at most a given one. With the method `average` their distance is
the mean over pairs of tokens; with `components` it is that of the two nearest tokens (connected components).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Integer, Num
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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
        distinct, entry = np.unique(pairs, return_inverse=True)
        owners = distinct // vocabulary
        return cls(
            offsets=np.searchsorted(owners, np.arange(n_features + 1)).astype(np.int64),
            tokens=(distinct % vocabulary).astype(np.int32),
            counts=np.bincount(entry, weights, len(distinct)),
        )

    def feature_of_entry(self) -> Int64[np.ndarray, " entry"]:
        """The feature each entry belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


METHODS = {"average": "average", "components": "single"}  # as scipy calls them


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
        ids = counts.tokens
        joined = [np.empty((0, 2), np.int64)]
        for start, end in zip(counts.offsets[:-1].tolist(), counts.offsets[1:].tolist(), strict=True):
            pairs = self._joins(self.vectors[ids[start:end]])
            if len(pairs):
                joined.append(start + pairs)
        first, second = np.concatenate(joined).T
        graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(ids), len(ids)))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    def centres(self, tokens: Int32[np.ndarray, " entry"], cluster: Int64[np.ndarray, " entry"]) -> np.ndarray:
        """The mean vectors of the clusters. The product of two is the mean cosine over pairs of their tokens."""
        order = np.argsort(cluster, kind="stable")
        sums = np.add.reduceat(self.vectors[tokens[order]], np.searchsorted(cluster[order], np.unique(cluster)))
        return sums / np.bincount(cluster)[:, None].astype(np.float32)

    def joined(self, left: np.ndarray, right: np.ndarray) -> Bool[np.ndarray, "left right"]:
        """By the mean distance of their tokens, under either method."""
        return 1 - left @ right.T <= self.distance

    def _joins(self, vectors: Float32[np.ndarray, "token dimension"]) -> Int64[np.ndarray, "join two"]:
        """Pairs of tokens that must be joined to get the clusters."""
        distances = 1 - vectors @ vectors.T.copy()  # not a view: numpy would start threads for so small a product
        near = distances <= self.distance
        np.fill_diagonal(near, False)
        some = np.flatnonzero(near.any(1))  # a token near no other stays alone under either method
        if len(some) < 2:
            return np.empty((0, 2), np.int64)
        condensed = distances[some[:, None], some][np.triu_indices(len(some), 1)]
        tree = linkage(condensed, METHODS[self.method])
        member = [*range(len(some))]  # a token of each node of the tree
        for left in tree[:, 0].astype(int).tolist():
            member.append(member[left])
        return some[np.array(member)[tree[tree[:, 2] <= self.distance, :2].astype(int)]]


def global_clusters(
    vectors: Float[np.ndarray, "vocabulary dimension"], distance: float
) -> Int32[np.ndarray, " vocabulary"]:
    """Average linkage over the whole vocabulary. Memory grows with the square of its size.

    Returns the cluster of each item, numbered in the order of first appearance.
    """
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
