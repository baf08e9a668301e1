"""Retrieval of translations: is a sentence's own translation the nearest of many candidates?"""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_array

Vectors: TypeAlias = np.ndarray | csr_array  # [sentence, dimension]
EQUAL = 1e-9  # cosines that differ by less are equal: sentences that occur twice


class Retrieved(NamedTuple):
    """For each pair 1 where its translation is the nearest candidate, 0 elsewhere; 1/n where n are equally near.

    `forward`: a sentence of the first language retrieves one of the second; `backward`: the other way round.
    `shuffled`: the same, both ways, with another pair's translation in place of its own.
    """

    forward: Float64[np.ndarray, " pair"]
    backward: Float64[np.ndarray, " pair"]
    shuffled: Float64[np.ndarray, " pair"]


def pools(pairs: int, candidates: int, seed: int) -> Int64[np.ndarray, "pool candidate"]:
    """Deal pairs into pools of `candidates` pairs each, at random; those that are left over are in none."""
    number = pairs // candidates
    return np.random.default_rng(seed).permutation(pairs)[: number * candidates].reshape(number, candidates)


def retrieve(left: Vectors, right: Vectors, pool: Int64[np.ndarray, "pool candidate"], centred: bool) -> Retrieved:
    """Retrieve translations by the cosine, among the pairs of the same pool.

    Args:
        left: Vectors of the sentences of one language.
        right: Vectors of their translations, in the same order.
        pool: The pairs of each pool (`pools`).
        centred: Subtract from each vector the mean over its language, of all sentences given.
    """
    means = [vectors.mean(0) if centred else np.zeros(vectors.shape[1]) for vectors in (left, right)]
    parts = [_of_pool(_cosines(left[members], right[members], *means)) for members in pool]
    return Retrieved(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _of_pool(cosine: Float64[np.ndarray, "left right"]) -> Retrieved:
    own = np.arange(len(cosine))
    other = np.roll(own, 1)  # pairs are in random order
    shuffled = (_nearest(cosine, other) + _nearest(cosine.T, other)) / 2
    return Retrieved(_nearest(cosine, own), _nearest(cosine.T, own), shuffled)


def _nearest(
    cosine: Float64[np.ndarray, "query candidate"], wanted: Int64[np.ndarray, " query"]
) -> Float64[np.ndarray, " query"]:
    """Whether each query's wanted candidate is its nearest; the chance of it where several are equally near."""
    near = cosine >= cosine.max(1, keepdims=True) - EQUAL
    return near[np.arange(len(near)), wanted] / near.sum(1)


def _cosines(
    left: Vectors, right: Vectors, left_mean: Float64[np.ndarray, " d"], right_mean: Float64[np.ndarray, " d"]
) -> Float64[np.ndarray, "left right"]:
    """Cosines of vectors less their language's mean, without making sparse vectors dense; 0 for a vector of 0."""
    product = left @ right.T
    dense = product.toarray() if isinstance(product, csr_array) else product
    dense = dense - (left @ right_mean)[:, None] - (right @ left_mean) + left_mean @ right_mean
    norms = [
        np.sqrt(np.maximum((vectors**2).sum(1) - 2 * (vectors @ mean) + mean @ mean, 0))
        for vectors, mean in ((left, left_mean), (right, right_mean))
    ]
    return dense / np.maximum(np.outer(*norms), np.finfo(float).tiny)
