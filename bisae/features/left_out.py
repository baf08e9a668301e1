"""The contexts that latents have without some blocks of the documents: what a jackknife over documents is made of."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from bisae.features.contexts import FeatureContexts, Patterns, Peaks, RawContexts
from bisae.features.tokens import Tokens
from bisae.metrics.intervals import BLOCKS, LEFT_OUT, document_blocks


class Choice(NamedTuple):
    """Contexts as indices into peaks. The candidates are the contexts of the whole text, then the `further` ones."""

    contexts: Int64[np.ndarray, " context"]  # as the rule gives them for the whole text
    further: Int64[np.ndarray, " further"]  # not among them, but chosen by some part
    kept: Bool[np.ndarray, "part candidate"]  # which candidates each part chooses


def sequence_blocks(tokens: Tokens, seed: int) -> Int64[np.ndarray, " sequence"]:
    """The block of documents that each sequence is in; translations have one number, and so are in one block.

    Blocks have as many documents of each language, and of translated ones, or one more.
    """
    first = tokens.borders[:-1]
    numbers, document = np.unique(tokens.document[first], return_inverse=True)
    languages = np.zeros(len(numbers), np.int64)
    np.bitwise_or.at(languages, document, 1 << tokens.language[first].astype(np.int64))
    return document_blocks(languages, seed)[document]


def choose(
    patterns: Patterns,
    peaks: Peaks,
    maximum: Float32[np.ndarray, " latent"],
    block: Int64[np.ndarray, " sequence"],
) -> Choice:
    """Choose contexts from the whole text, and again from each part: without the blocks of a row of `LEFT_OUT`.

    Of a part so many fewer contexts are chosen as it has less text: where a latent has more than enough, what is left
    out would else be made good from further on in the text, and the parts would differ less than texts do.

    A latent's largest activation before TopK is known of the whole text only. Without the block of its largest firing
    it is taken to be the largest firing that is left, where that firing was the largest activation. So what is
    neglected are tokens on which the latent is more active than that and yet not among the TopK.
    """
    contexts = patterns.chosen(peaks, maximum)
    strongest = _strongest(peaks, len(maximum))
    rule = patterns.for_share(1 - LEFT_OUT.shape[1] / BLOCKS)
    chosen = []
    for out in LEFT_OUT:
        left = np.flatnonzero(~np.isin(block, out)[peaks.sequence])
        rest = Peaks(peaks.latent[left], peaks.sequence[left], peaks.value[left])
        there = np.where(strongest >= maximum, _strongest(rest, len(maximum)), maximum)
        chosen.append(left[rule.chosen(rest, there)])
    candidate = np.full(len(peaks.latent), -1, np.int32)
    for indices in chosen:
        candidate[indices] = len(contexts)
    candidate[contexts] = np.arange(len(contexts))
    further = np.flatnonzero(candidate == len(contexts))
    candidate[further] += np.arange(len(further), dtype=np.int32)
    kept = np.zeros((len(chosen), len(contexts) + len(further)), bool)
    for row, indices in zip(kept, chosen, strict=True):
        row[candidate[indices]] = True
    return Choice(contexts, further, kept)


def peaks_left(
    raw: RawContexts, contexts: FeatureContexts, kept: Bool[np.ndarray, "part candidate"]
) -> Iterator[tuple[Int64[np.ndarray, " chosen"], Int16[np.ndarray, " chosen"]]]:
    """Of each part: the candidates that are contexts then, and the positions of their peaks.

    `raw` holds the candidates, `contexts` those of the whole text. Stored values are relative to a latent's largest
    one, so that a peak may move in every context of a latent that has lost the context with the largest.
    """
    number = len(contexts.latent)
    scale = raw.scale(np.arange(number))
    peak = np.append(contexts.peak, raw.peaks(np.arange(number, len(raw.latent)), scale))
    for row in kept:
        chosen = np.flatnonzero(row)
        there = raw.scale(chosen)
        moved = chosen[(there != scale)[raw.latent[chosen]]]
        now = peak.copy()
        now[moved] = raw.peaks(moved, there)
        yield chosen, now[chosen]


def _strongest(peaks: Peaks, latents: int) -> Float32[np.ndarray, " latent"]:
    """The largest firing of each latent; 0 where it does not fire."""
    found = np.zeros(latents, np.float32)
    np.maximum.at(found, peaks.latent, peaks.value)
    return found
