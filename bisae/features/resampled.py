"""The contexts that latents have in resamples of the documents: what intervals over documents are made of."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16, Int64, Integer, UInt8

from bisae.features.contexts import InOrder, Patterns, Peaks, number_within, strongest_first
from bisae.features.read_contexts import FeatureContexts
from bisae.features.steps import Steps
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
    there = _maximum_again(peaks, maximum, drawn)
    if isinstance(patterns, InOrder):
        chosen = list(_in_order(patterns, peaks, there, drawn))
    else:
        chosen = list(_repeated(patterns, peaks, there, drawn))
    candidate = np.full(len(peaks.latent), -1, np.int32)
    for indices, _ in chosen:
        candidate[indices] = len(contexts)
    candidate[contexts] = np.arange(len(contexts))
    further = np.flatnonzero(candidate == len(contexts))
    candidate[further] += np.arange(len(further), dtype=np.int32)
    counted = np.zeros((len(chosen), len(contexts) + len(further)), np.uint8)
    for row, (indices, times) in zip(counted, chosen, strict=True):
        row[candidate[indices]] = times
    return Choice(contexts, further, counted)


Again = Iterator[tuple[Integer[np.ndarray, " chosen"], Integer[np.ndarray, " chosen"]]]
STRONGEST = 32  # peaks of a latent, of which a resample lacks all with a chance of 1e-14
ROUNDING = 2**-10  # twice that of codes: a firing so near to the largest activation is it


def _repeated(
    patterns: Patterns,
    peaks: Peaks,
    there: Float32[np.ndarray, "resample latent"],
    drawn: UInt8[np.ndarray, "resample sequence"],
) -> Again:
    """The contexts in each resample, and how often: every peak stands there as often as its sequence was drawn."""
    for maximum, times in zip(there, drawn, strict=True):
        held = np.repeat(np.arange(len(peaks.latent)), times[peaks.sequence])
        again = Peaks(peaks.latent[held], peaks.sequence[held], peaks.value[held])
        yield np.unique(held[patterns.chosen(again, maximum)], return_counts=True)


def _in_order(
    rule: InOrder,
    peaks: Peaks,
    there: Float32[np.ndarray, "resample latent"],
    drawn: UInt8[np.ndarray, "resample sequence"],
) -> Again:
    """The same where the first of an order are taken: only so many peaks are looked at as some resample reaches."""
    order = rule.ordered(peaks, there.min(0))
    held = np.bincount(peaks.latent[order], minlength=there.shape[1])
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in drawn]
    latents, width = np.flatnonzero(held), 2 * rule.contexts + STRONGEST
    while len(latents):
        table = _table(peaks, order, there.shape[1], min(width, int(held[latents].max())))[latents]
        sequence, value = peaks.sequence[table], np.where(table < 0, np.float32(-1), peaks.value[table])
        missing = np.zeros(len(latents), bool)
        now = []
        for maximum, of_sequence in zip(there, drawn, strict=True):
            times = of_sequence[sequence] * ((value > 0) & rule.qualifies(value, maximum[latents, None]))
            after = np.cumsum(times, axis=1, dtype=np.int32)
            missing |= (after[:, -1] < rule.contexts) & (held[latents] > table.shape[1])
            at = np.flatnonzero((times > 0) & (after - times < rule.contexts))
            beyond = np.maximum(after.ravel()[at] - rule.contexts, 0).astype(np.uint8)
            now.append((at, times.ravel()[at] - beyond))
        for row, (at, times) in zip(found, now, strict=True):
            kept = ~missing[at // table.shape[1]]
            row.append((table.ravel()[at[kept]].astype(np.int32), times[kept]))
        latents, width = latents[missing], 8 * width
    nothing = np.empty(0, np.int32), np.empty(0, np.uint8)
    for row in found:
        indices, times = (np.concatenate(column) for column in zip(nothing, *row, strict=True))
        yield indices, times


def _table(
    peaks: Peaks, order: Int64[np.ndarray, " some"], latents: int, width: int
) -> Int64[np.ndarray, "latent width"]:
    """The first `width` of each latent among `order`, which is grouped by latent; -1 where there are fewer."""
    table = np.full((latents, width), -1)
    latent, place = peaks.latent[order], number_within(peaks.latent[order])
    kept = place < width
    table[latent[kept], place[kept]] = order[kept]
    return table


def _maximum_again(
    peaks: Peaks, maximum: Float32[np.ndarray, " latent"], drawn: UInt8[np.ndarray, "resample sequence"]
) -> Float32[np.ndarray, "resample latent"]:
    """What each latent's largest activation is taken to be in each resample."""
    there = np.tile(maximum, (len(drawn), 1))
    strongest = np.zeros(len(maximum), np.float32)
    latents, starts = np.unique(peaks.latent, return_index=True)
    strongest[latents] = np.maximum.reduceat(peaks.value, starts) if len(starts) else 0
    moves = latents[strongest[latents] >= maximum[latents] * np.float32(1 - ROUNDING)]
    if not len(moves):
        return there
    table = _table(peaks, strongest_first(peaks), len(maximum), STRONGEST)[moves]
    sequence, value = peaks.sequence[table], np.where(table < 0, np.float32(0), peaks.value[table])
    stops = np.append(starts[1:], len(peaks.latent))[np.searchsorted(latents, moves)]
    starts = starts[np.searchsorted(latents, moves)]
    for row, times in zip(there, drawn, strict=True):
        row[moves] = np.where(times[sequence] > 0, value, 0).max(1)
        for number in np.flatnonzero((row[moves] == 0) & (stops - starts > STRONGEST)):
            all_of = slice(starts[number], stops[number])
            row[moves[number]] = peaks.value[all_of].max(initial=0, where=times[peaks.sequence[all_of]] > 0)
    return there


def peaks_again(
    steps: Steps, contexts: FeatureContexts, times: UInt8[np.ndarray, "resample candidate"]
) -> Iterator[tuple[Int64[np.ndarray, " chosen"], Int16[np.ndarray, " chosen"]]]:
    """Of each resample: its contexts as candidates, some of them several times, and the positions of their peaks.

    `steps` are of the candidates, `contexts` are those of the whole text. Stored values are relative to a latent's
    largest one, so that a peak may move in every context of a latent whose context with the largest was not drawn.
    """
    number, several = len(contexts.latent), steps.several
    scale = steps.scale(np.arange(len(steps.latent)) < number)
    peak = np.append(contexts.peak, steps.position[steps.first_largest(np.arange(number, len(steps.latent)), scale)])
    for row in times:
        there = steps.scale(row)
        moved = several[(row[several] > 0) & (there != scale)[steps.latent[several]]]
        now = peak.copy()
        now[moved] = steps.position[steps.first_largest(moved, there)]
        chosen = np.repeat(np.arange(len(row)), row)
        yield chosen, now[chosen]
