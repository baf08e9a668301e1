"""The contexts of a latent: the sequences that show what it responds to (config group `patterns`)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int16, Int32, Int64, Real, UInt8

from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import Firings
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Share
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Peaks:
    """Where a block's latents fire: each (latent, sequence) once, in the order of the text within a latent.

    In a resample each stands as often as its document was drawn, one after the other.
    """

    latent: Int64[np.ndarray, " pair"]  # within the block
    sequence: Int32[np.ndarray, " pair"]
    value: Float32[np.ndarray, " pair"]  # the largest activation in the sequence

    @classmethod
    def of(cls, firings: Firings, sequence: Int32[np.ndarray, " token"]) -> "Peaks":
        latent, found = firings.latent_of_entry(), sequence[firings.rows]
        new = np.ones(len(found), bool)
        new[1:] = (np.diff(latent) != 0) | (np.diff(found) != 0)
        starts = np.flatnonzero(new)
        value = np.maximum.reduceat(firings.values, starts) if len(starts) else firings.values
        return cls(latent[starts], found[starts], value)


@runtime_checkable
class Patterns(Protocol):
    """A rule that chooses a latent's contexts."""

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        """Indices into `peaks`, grouped by latent, in the order the contexts are shown.

        `maximum`: each latent's largest activation before ReLU and TopK.
        """
        ...


@dataclass(frozen=True)
class Paper:
    """The first `contexts` sequences in which a latent fires above `share` of its maximum, as in the v1 code."""

    contexts: Count
    share: Share

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise Refused("share", self.share, "must be at least 0 and below 1")

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        above = np.flatnonzero(peaks.value > np.float32(self.share) * maximum[peaks.latent])
        return above[_number_within(peaks.latent[above]) < self.contexts]


@dataclass(frozen=True)
class Top:
    """The `contexts` sequences in which a latent fires most strongly, the strongest one first."""

    contexts: Count

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        order = np.lexsort((-peaks.value, peaks.latent))
        return order[_number_within(peaks.latent[order]) < self.contexts]


@dataclass(frozen=True)
class Quantile:
    """Sequences from the whole range of activations.

    The peaks of a latent, ordered by size, are cut in `quantiles` equal parts. Each part gives its first
    `contexts / quantiles` sequences, in the order of the text. The strongest part comes first.
    """

    contexts: Count
    quantiles: Count

    def __post_init__(self) -> None:
        if self.quantiles < 1 or self.contexts % self.quantiles:
            raise Refused("quantiles", self.quantiles, f"must divide contexts={self.contexts}")

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        order = np.lexsort((-peaks.value, peaks.latent))
        number = _number_within(peaks.latent[order])
        of_latent = np.bincount(peaks.latent)[peaks.latent[order]]
        part = number * self.quantiles // of_latent
        by_part = np.lexsort((order, part, peaks.latent[order]))  # in the order of the text within a part
        key = peaks.latent[order] * self.quantiles + part
        return order[by_part][_number_within(key[by_part]) < self.contexts // self.quantiles]


def _number_within(groups: Int64[np.ndarray, " item"]) -> Int64[np.ndarray, " item"]:
    """The place of each item in its group, from 0. The items of a group must be adjacent."""
    new = np.ones(len(groups), bool)
    new[1:] = np.diff(groups) != 0
    starts = np.flatnonzero(new)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


@dataclass(frozen=True, eq=False)
class FeatureContexts:
    """The contexts of all latents, grouped by latent.

    `values[offsets[c]:offsets[c + 1]]` are the values of the tokens in context c, as the v1 code stores them: 0 where
    the activation before TopK is negative, else ceil(10 activation / largest activation in the latent's contexts).
    `peak` is the position of the largest value, the first one if several are equal. `activation` is the activation
    before TopK at the peak.
    """

    latent: Int64[np.ndarray, " context"]
    sequence: Int32[np.ndarray, " context"]
    peak: Int16[np.ndarray, " context"]
    activation: Float32[np.ndarray, " context"]
    offsets: Int64[np.ndarray, " context_and_one"]
    values: UInt8[np.ndarray, " value"]

    @property
    def rank(self) -> Int16[np.ndarray, " context"]:
        """The place of each context among the contexts of its latent, from 0."""
        return _number_within(self.latent).astype(np.int16)


@dataclass(frozen=True, eq=False)
class RawContexts:
    """The activations before TopK of pairs (latent, sequence), at every token of the sequence, in any order of pairs.

    `values[offsets[c]:offsets[c + 1]]` are the activations of pair c.
    """

    latent: Int64[np.ndarray, " context"]
    sequence: Int32[np.ndarray, " context"]
    offsets: Int64[np.ndarray, " context_and_one"]
    values: Float32[np.ndarray, " value"]

    @cached_property
    def largest(self) -> Float32[np.ndarray, " context"]:
        """The largest activation of each pair."""
        return np.maximum.reduceat(self.values, self.offsets[:-1]) if len(self.latent) else self.values

    def scale(self, some: Int64[np.ndarray, " some"]) -> Float32[np.ndarray, " latent"]:
        """The largest activation of each latent in `some` of the pairs, at least 0, up to the last latent."""
        of_latent = np.zeros(self.latent.max(initial=-1) + 1, np.float32)
        np.maximum.at(of_latent, self.latent[some], self.largest[some])
        return of_latent

    def peaks(
        self, some: Int64[np.ndarray, " some"], scale: Float32[np.ndarray, " latent"]
    ) -> Int16[np.ndarray, " some"]:
        """The position of the first largest value in `some` of the pairs, if the largest of each latent is `scale`."""
        lengths = np.diff(self.offsets)[some]
        offsets = np.append(0, np.cumsum(lengths))
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[some] - offsets[:-1], lengths)
        stored = _stored(self.values[at], np.repeat(scale[self.latent[some]], lengths))
        return _first_largest(stored, offsets)

    def contexts(self, number: int) -> FeatureContexts:
        """The first `number` pairs as the contexts of their latents. These pairs must be grouped by latent."""
        latent, sequence, offsets = self.latent[:number], self.sequence[:number], self.offsets[: number + 1]
        raw, scale = self.values[: offsets[-1]], self.scale(np.arange(number))
        values = _stored(raw, np.repeat(scale[latent], np.diff(offsets))).astype(np.uint8)
        peak = _first_largest(values, offsets)
        return FeatureContexts(latent, sequence, peak, raw[offsets[:-1] + peak], offsets, values)


def read_contexts(
    reading: AnalysedActivations,
    layer: int,
    sae: SparseAutoencoder,
    latent: Int64[np.ndarray, " context"],
    sequence: Int32[np.ndarray, " context"],
) -> RawContexts:
    """Encode chosen sequences again, to get the activations before TopK at all of their tokens.

    Args:
        reading: The LM's activations on the text.
        layer: The layer that the SAE reads.
        sae: The SAE.
        latent: The latent of each pair.
        sequence: The sequence of each pair.
    """
    if not len(latent):
        return RawContexts(latent, sequence, np.zeros(1, np.int64), np.empty(0, np.float32))
    borders = reading.tokens.borders
    lengths = np.diff(borders)[sequence]
    offsets = np.append(0, np.cumsum(lengths))
    raw = np.empty(offsets[-1], np.float32)
    by_sequence = np.argsort(sequence, kind="stable")
    used, first = np.unique(sequence[by_sequence], return_index=True)
    groups = dict(zip(used.tolist(), np.split(by_sequence, first[1:]), strict=True))
    wanted = np.concatenate([np.arange(borders[s], borders[s + 1]) for s in used])
    for rows, values in reading.rows(wanted, [layer]):
        for number, at in _pieces(reading.tokens.sequence[rows]):
            # A window may cut a sequence: its two pieces are encoded one by one.
            encoded = _pre_activations(sae, values[layer][at], latent[groups[number]])
            begin = int(rows[at.start] - borders[number])
            for context, activations in zip(groups[number], encoded, strict=True):
                raw[offsets[context] + begin : offsets[context] + begin + len(activations)] = activations
    return RawContexts(latent, sequence, offsets, raw)


@torch.no_grad()
def _pre_activations(
    sae: SparseAutoencoder, rows: torch.Tensor, latents: Int64[np.ndarray, " latent"]
) -> Float32[np.ndarray, "latent token"]:
    chosen = torch.from_numpy(latents).to(sae.W_enc.device)
    centred = sae.normalize(rows.to(sae.W_enc.device))[0] - sae.b_pre
    activations = sae.W_enc[chosen] @ centred.T + sae.b_enc[chosen, None]
    return activations.float().cpu().numpy()


def _pieces(sequence: Int32[np.ndarray, " row"]) -> list[tuple[int, slice]]:
    """Each sequence, and the slice of its rows."""
    numbers, starts = np.unique(sequence, return_index=True)
    stops = np.append(starts[1:], len(sequence))
    return [(int(s), slice(int(a), int(b))) for s, a, b in zip(numbers, starts, stops, strict=True)]


def _stored(raw: Float32[np.ndarray, " value"], scale: Float32[np.ndarray, " value"]) -> Float32[np.ndarray, " value"]:
    """The values that the v1 code stores for activations; `scale` is the largest activation of each value's latent."""
    return np.where(raw > 0, np.ceil(10 * (raw / np.where(scale > 0, scale, 1))), 0)


def _first_largest(
    values: Real[np.ndarray, " value"], offsets: Int64[np.ndarray, " and_one"]
) -> Int16[np.ndarray, " piece"]:
    """The position of the largest value in each piece, the first one if several are equal."""
    if len(offsets) == 1:
        return np.empty(0, np.int16)
    largest = np.repeat(np.maximum.reduceat(values, offsets[:-1]), np.diff(offsets))
    at: Bool[np.ndarray, " value"] = values == largest
    hits = np.flatnonzero(at)
    return (hits[np.searchsorted(hits, offsets[:-1])] - offsets[:-1]).astype(np.int16)
