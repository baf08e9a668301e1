"""The contexts that latents have in resamples of the documents: what intervals over documents are made of."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16, Int64, UInt8

from bisae.features.contexts import FeatureContexts, Patterns, Peaks, RawContexts
from bisae.features.tokens import Tokens
from bisae.metrics.intervals import draws


class Choice(NamedTuple):
    """Contexts as indices into peaks. The candidates are the contexts of the whole text, then the `further` ones."""

    contexts: Int64[np.ndarray, " context"]  # as the rule gives them for the whole text
    further: Int64[np.ndarray, " further"]  # not among them, but chosen in some resample
    times: UInt8[np.ndarray, "resample candidate"]  # how often each resample has each candidate among its contexts


def sequence_draws(tokens: Tokens, seed: int) -> UInt8[np.ndarray, "resample sequence"]:
    """How often each resample of documents holds each sequence; translations have one number, and are drawn together.

    Resamples have as many documents of each language, and of translated ones, as the text.
    """
    first = tokens.borders[:-1]
    numbers, document = np.unique(tokens.document[first], return_inverse=True)
    languages = np.zeros(len(numbers), np.int64)
    np.bitwise_or.at(languages, document, 1 << tokens.language[first].astype(np.int64))
    return draws(languages, seed)[:, document]


def choose(
    patterns: Patterns,
    peaks: Peaks,
    maximum: Float32[np.ndarray, " latent"],
    drawn: UInt8[np.ndarray, "resample sequence"],
) -> Choice:
    """Choose contexts from the whole text, and again from each resample, in which a sequence may stand several times.

    A latent's largest activation before TopK is known of the whole text only. Without the sequence of its largest
    firing it is taken to be the largest firing that is left, where that firing was the largest activation. So what is
    neglected are tokens on which the latent is more active than that and yet not among the TopK.
    """
    contexts = patterns.chosen(peaks, maximum)
    strongest = _strongest(peaks, len(maximum))
    chosen = []
    for times in drawn:
        held = np.repeat(np.arange(len(peaks.latent)), times[peaks.sequence])
        again = Peaks(peaks.latent[held], peaks.sequence[held], peaks.value[held])
        there = np.where(strongest >= maximum, _strongest(again, len(maximum)), maximum)
        chosen.append(held[patterns.chosen(again, there)])
    candidate = np.full(len(peaks.latent), -1, np.int32)
    for indices in chosen:
        candidate[indices] = len(contexts)
    candidate[contexts] = np.arange(len(contexts))
    further = np.flatnonzero(candidate == len(contexts))
    candidate[further] += np.arange(len(further), dtype=np.int32)
    candidates = len(contexts) + len(further)
    counted = [np.bincount(candidate[indices], minlength=candidates).astype(np.uint8) for indices in chosen]
    return Choice(contexts, further, np.stack(counted))


def peaks_again(
    raw: RawContexts, contexts: FeatureContexts, times: UInt8[np.ndarray, "resample candidate"]
) -> Iterator[tuple[Int64[np.ndarray, " chosen"], Int16[np.ndarray, " chosen"]]]:
    """Of each resample: its contexts as candidates, some of them several times, and the positions of their peaks.

    `raw` holds the candidates, `contexts` those of the whole text. Stored values are relative to a latent's largest
    one, so that a peak may move in every context of a latent whose context with the largest was not drawn.
    """
    number = len(contexts.latent)
    scale = raw.scale(np.arange(number))
    peak = np.append(contexts.peak, raw.peaks(np.arange(number, len(raw.latent)), scale))
    for row in times:
        chosen = np.flatnonzero(row)
        there = raw.scale(chosen)
        moved = chosen[(there != scale)[raw.latent[chosen]]]
        now = peak.copy()
        now[moved] = raw.peaks(moved, there)
        chosen = np.repeat(chosen, row[chosen])
        yield chosen, now[chosen]


def _strongest(peaks: Peaks, latents: int) -> Float32[np.ndarray, " latent"]:
    """The largest firing of each latent; 0 where it does not fire."""
    found = np.zeros(latents, np.float32)
    np.maximum.at(found, peaks.latent, peaks.value)
    return found
