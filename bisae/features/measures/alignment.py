"""Alignment: a feature fires on the same sentences in both languages. Correlations over held-out sentence pairs."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import csr_array

SPECIAL = re.compile("<[^<>]+>")  # <s>, <|end|>, bytes <0x0A>
TIE = 1e-12  # correlations that differ only in the order of their sums


class AlignmentScores(NamedTuple):
    """Scores of each latent. NaN if its peaks on one side are all equal, for example because it never fires."""

    r: Float64[np.ndarray, " latent"]  # Pearson correlation over pairs
    p: Float64[np.ndarray, " latent"]  # share of the pairings, the true one among them, that correlate as strongly
    r_shuffled: Float64[np.ndarray, " latent"]  # r of the first shuffle
    p_shuffled: Float64[np.ndarray, " latent"]  # its p, among all pairings


def is_word(texts: Sequence[str]) -> Bool[np.ndarray, " item"]:
    """True for the vocabulary items that hold a letter of any script; `<...>` (bytes, special tokens) are no words.

    `texts` are readable pieces: byte-level vocabularies spell a space as a letter.
    """
    return np.array([any(map(str.isalpha, text)) and not SPECIAL.fullmatch(text) for text in texts], dtype=bool)


def sentence_peaks(
    sentence: Int64[np.ndarray, " entry"],
    latent: Int64[np.ndarray, " entry"],
    value: Float32[np.ndarray, " entry"],
    shape: tuple[int, int],
) -> csr_array:
    """The largest activation of each latent in each sentence.

    Args:
        sentence: The sentence of each firing.
        latent: The latent of each firing.
        value: The activation of each firing, above 0.
        shape: The numbers of sentences and of latents.

    Returns:
        A sparse matrix [sentence, latent].
    """
    order = np.lexsort((-value, latent, sentence))
    sentence, latent = sentence[order], latent[order]
    peak = np.unique(sentence * shape[1] + latent, return_index=True)[1]  # first of equal keys: the largest
    return csr_array((value[order[peak]], (sentence[peak], latent[peak])), shape=shape)


def alignment(left: csr_array, right: csr_array, permutations: int, seed: int) -> AlignmentScores:
    """Correlate each latent's peaks on sentences with its peaks on their translations.

    A sentence without a firing counts as 0. Each permutation pairs the sentences with other translations, the same for
    all latents. The smallest p is 1 / (1 + permutations): `aligned` can find n of m latents only if
    permutations >= m / (n level).

    Args:
        left: [sentence, latent] the peaks on the sentences of one language.
        right: [sentence, latent] the peaks on their translations, in the same order.
        permutations: The number of permutations, at least 1.
        seed: Seed of the permutations.

    Raises:
        ValueError: `left` and `right` have different shapes.
    """
    if left.shape != right.shape:
        raise ValueError(f"{left.shape} peaks on one side, {right.shape} on the other")
    sentences, latents = left.shape
    pairings = np.tile(np.arange(sentences, dtype=np.int32)[:, None], 1 + permutations)  # column 0: the true pairs
    np.random.default_rng(seed).permuted(pairings[:, 1:], axis=0, out=pairings[:, 1:])
    left, right = left.tocsc(), right.tocsc()
    scores = np.full((4, latents), np.nan)
    for latent in range(latents):
        column, other = (slice(*side.indptr[latent : latent + 2]) for side in (left, right))
        x, y = np.zeros((2, sentences))
        x[left.indices[column]], y[right.indices[other]] = left.data[column], right.data[other]
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            continue
        # sum (x - mean x) (y - mean y) = sum x (y - mean y): only sentences on which x fires have terms
        y -= y.mean()
        rows = left.indices[column]
        r = x[rows] @ y[pairings[rows]] / (np.linalg.norm(x - x.mean()) * np.linalg.norm(y))
        scores[:, latent] = r[0], (r >= r[0] - TIE).mean(), r[1], (r >= r[1] - TIE).mean()
    return AlignmentScores(*scores)


def jaccard(left: csr_array, right: csr_array) -> Float64[np.ndarray, " sentence"]:
    """Of the latents that are active on a sentence or its translation, the share active on both; 0 if none is active.

    Args:
        left: [sentence, latent] activations on the sentences of one language.
        right: [sentence, latent] activations on their translations, in the same order.
    """
    left, right = left > 0, right > 0
    return left.multiply(right).sum(1) / np.maximum((left + right).sum(1), 1)


def aligned(
    r: Float64[np.ndarray, " latent"], p: Float64[np.ndarray, " latent"], least: float, level: float
) -> Bool[np.ndarray, " latent"]:
    """The aligned latents: r is at least `least`, and p is significant at a false discovery rate of `level`.

    A low p alone says little, since long sentences have long translations, and every latent fires more on both. A
    latent whose p is NaN is not aligned, and is not counted among the tests.
    """
    from scipy.stats import false_discovery_control  # slow to import

    tested = ~np.isnan(p)
    significant = np.zeros(len(p), dtype=bool)
    significant[tested] = (false_discovery_control(p[tested]) <= level) & (r[tested] >= least)
    return significant
