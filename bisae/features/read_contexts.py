"""Chosen contexts: the activations before TopK at their tokens, from a second reading of the text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import torch
from jaxtyping import Float32, Int16, Int32, Int64, Real, Shaped, UInt8
from torch import Tensor

from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.contexts import number_within
from bisae.sae import SparseAutoencoder

ROWS = 2**13  # that are normalised at once
VALUES = 2**21  # activations of contexts that are looked at at once
IN_RAM = 2**29  # bytes of activations of contexts; more are kept in a file until they are scaled


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
        return number_within(self.latent).astype(np.int16)


@dataclass(frozen=True, eq=False)
class Steps:
    """Where the peaks of pairs (latent, sequence) can be, in any order of pairs.

    A *step* is an activation before TopK above all earlier ones of the sequence. The first of the largest stored
    values is at a step, whatever the scale is. Entries `offsets[c]:offsets[c + 1]` are the steps of pair c so near to
    its largest activation that they can be it; the last one is the largest activation.
    """

    latent: Int64[np.ndarray, " pair"]
    offsets: Int64[np.ndarray, " pair_and_one"]
    position: Int16[np.ndarray, " step"]
    value: Float32[np.ndarray, " step"]

    @cached_property
    def largest(self) -> Float32[np.ndarray, " pair"]:
        """The largest activation of each pair."""
        return self.value[self.offsets[1:] - 1]

    @cached_property
    def several(self) -> Int64[np.ndarray, " some"]:
        """The pairs with more than one step, whose peak depends on the scale."""
        return np.flatnonzero(np.diff(self.offsets) > 1)

    @cached_property
    def _by_latent(self) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " some"], Int64[np.ndarray, " some"]]:
        order = np.argsort(self.latent, kind="stable")
        return order, *np.unique(self.latent[order], return_index=True)

    def scale(self, drawn: Shaped[np.ndarray, " pair"]) -> Float32[np.ndarray, " latent"]:
        """The largest activation of each latent in the `drawn` pairs, at least 0, up to the last latent."""
        order, latents, starts = self._by_latent
        of_latent = np.zeros(int(latents.max(initial=-1)) + 1, np.float32)
        if len(order):
            of_latent[latents] = np.maximum.reduceat(np.where(drawn[order] > 0, self.largest[order], 0), starts)
        return np.maximum(of_latent, 0)

    def first_largest(
        self, some: Int64[np.ndarray, " some"], scale: Float32[np.ndarray, " latent"]
    ) -> Int64[np.ndarray, " some"]:
        """The step at the peak of each of `some` pairs, if the largest activation of each latent is `scale`."""
        lengths = np.diff(self.offsets)[some]
        ends = np.cumsum(lengths)
        at = np.arange(lengths.sum()) + np.repeat(self.offsets[some] - (ends - lengths), lengths)
        values = stored(self.value[at], np.repeat(scale[self.latent[some]], lengths))
        hits = np.flatnonzero(values == np.repeat(values[ends - 1], lengths))
        return at[hits[np.searchsorted(hits, ends - lengths)]]

    def in_reach(self) -> "Steps":
        """Without those that are below the last step by a tenth of the latent's largest activation in any pair."""
        lengths = np.diff(self.offsets)
        # A little more than a tenth: `stored` rounds. Where no activation is positive, all stored values are equal.
        reach = np.float32(0.1001) * self.scale(np.ones(len(self.latent), bool))[self.latent]
        least = np.where(self.largest > 0, self.largest - np.maximum(reach, 0), -np.inf)
        kept = self.value >= np.repeat(least, lengths)
        offsets = np.append(0, np.cumsum(kept))[self.offsets]
        return Steps(self.latent, offsets, self.position[kept], self.value[kept])


def read_contexts(
    reading: AnalysedActivations,
    layer: int,
    sae: SparseAutoencoder,
    latent: Int64[np.ndarray, " pair"],
    sequence: Int32[np.ndarray, " pair"],
    contexts: int,
    scratch: Path,
) -> tuple[FeatureContexts, Steps]:
    """Encode chosen sequences again, to get the activations before TopK at all of their tokens.

    Args:
        reading: The LM's activations on the text.
        layer: The layer that the SAE reads.
        sae: The SAE.
        latent: The latent of each pair.
        sequence: The sequence of each pair.
        contexts: The number of pairs, the first ones, that are contexts of the whole text, grouped by latent. Of the
            others only the steps are kept.
        scratch: A folder for activations that need more than `IN_RAM`, 4 bytes for each token of a context.
    """
    lengths = np.diff(reading.tokens.borders)[sequence]
    found, pieces = [], []
    with SpooledTemporaryFile(IN_RAM, dir=str(scratch)) as file:
        for pairs, activations in _activations(reading, layer, sae, latent, sequence):
            step = np.ones(activations.shape, bool)
            largest = np.maximum.accumulate(activations, axis=1)
            np.greater(activations[:, 1:], largest[:, :-1], out=step[:, 1:])
            at = np.flatnonzero(step)
            pair, position = np.divmod(at, activations.shape[1])
            counts = np.bincount(pair, minlength=len(pairs))
            found.append((pairs, counts, position.astype(np.int16), activations.ravel()[at]))
            whole = np.flatnonzero(pairs < contexts)
            values = activations[whole][np.arange(activations.shape[1]) < lengths[pairs[whole], None]]
            file.write(values.data)
            if len(whole):
                pieces.append(pairs[whole])
        steps = _in_order_of_pairs(latent, found)
        del found
        scale = steps.scale(np.arange(len(latent)) < contexts)
        offsets = np.append(0, np.cumsum(lengths[:contexts]))
        scaled = np.empty(offsets[-1], np.uint8)
        file.seek(0)
        for pairs in pieces:
            long = lengths[pairs]
            values = np.frombuffer(file.read(4 * int(long.sum())), np.float32)
            place = np.arange(len(values)) + np.repeat(offsets[pairs] - (np.cumsum(long) - long), long)
            scaled[place] = stored(values, np.repeat(scale[latent[pairs]], long))
    first = steps.first_largest(np.arange(contexts), scale)
    of_text = latent[:contexts], sequence[:contexts], steps.position[first], steps.value[first]
    return FeatureContexts(*of_text, offsets, scaled), steps


def _in_order_of_pairs(latent: Int64[np.ndarray, " pair"], found: Sequence[tuple[np.ndarray, ...]]) -> Steps:
    if not found:
        return Steps(latent, np.zeros(1, np.int64), np.empty(0, np.int16), np.empty(0, np.float32))
    pairs, counts, position, value = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(pairs)
    read = Steps(latent[pairs], np.append(0, np.cumsum(counts)), position, value).in_reach()
    starts, counts = read.offsets[order], np.diff(read.offsets)[order]
    offsets = np.append(0, np.cumsum(counts))
    at = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return Steps(latent, offsets, read.position[at], read.value[at])


def _activations(
    reading: AnalysedActivations,
    layer: int,
    sae: SparseAutoencoder,
    latent: Int64[np.ndarray, " pair"],
    sequence: Int32[np.ndarray, " pair"],
) -> Iterator[tuple[Int64[np.ndarray, " some"], Float32[np.ndarray, "some token"]]]:
    """Some pairs and their activations before TopK, in any order of pairs; -inf after the end of a sequence."""
    by_sequence = np.argsort(sequence, kind="stable")
    used, starts = np.unique(sequence[by_sequence], return_index=True)
    ends = np.append(starts[1:], len(sequence))
    for inputs in _sequences(reading, layer, sae, used):
        batch: list[tuple[int, Int64[np.ndarray, " _"], Tensor]] = []  # length and pairs of a sequence, and its rows
        for number, rows in inputs:
            place, length = np.searchsorted(used, number), len(rows)
            pairs = by_sequence[starts[place] : ends[place]]
            most = max(1, VALUES // length)
            batch += [(length, pairs[low : low + most], rows) for low in range(0, len(pairs), most)]
        batch.sort(key=itemgetter(0))
        while batch:
            longest, size, part = batch[-1][0], 0, []
            while batch and batch[-1][0] > 0.8 * longest and size <= VALUES:
                part.append(batch.pop())
                size += len(part[-1][1]) * longest
            _, pairs, rows = zip(*part, strict=True)
            yield np.concatenate(pairs), _pre_activations(sae, [latent[some] for some in pairs], rows)


@torch.no_grad()
def _pre_activations(
    sae: SparseAutoencoder, latents: Sequence[Int64[np.ndarray, " _"]], inputs: Sequence[Tensor]
) -> Float32[np.ndarray, "all longest"]:
    """Of each sequence's `inputs` [token d_model] for its latents, below each other."""
    longest, number = max(map(len, inputs)), sum(map(len, latents))
    out, place = sae.W_enc.new_full((number, longest), -torch.inf), 0
    for some, rows in zip(latents, inputs, strict=True):
        here = torch.from_numpy(some).to(sae.W_enc.device)
        own = out[place : place + len(some), : len(rows)]
        torch.mm(sae.W_enc[here], rows.T, out=own)
        own += sae.b_enc[here, None]
        place += len(some)
    return out.float().cpu().numpy()


def _sequences(
    reading: AnalysedActivations, layer: int, sae: SparseAutoencoder, used: Int32[np.ndarray, " some"]
) -> Iterator[list[tuple[int, Tensor]]]:
    """The `used` sequences, in the order of the text, and their rows as the encoder gets them: some at a time."""
    borders = reading.tokens.borders
    wanted = np.concatenate([np.empty(0, np.int64), *(np.arange(borders[s], borders[s + 1]) for s in used)])
    begun: list[Tensor] = []  # of a sequence that a window or a block of rows cuts
    for window, values in reading.rows(wanted, [layer]):
        for start in range(0, len(window), ROWS):
            rows = window[start : start + ROWS]
            block = values[layer][start : start + ROWS].to(sae.W_enc.device)
            centred = (sae.normalize(block)[0] - sae.b_pre).detach()
            numbers, firsts = np.unique(reading.tokens.sequence[rows], return_index=True)
            ready = []
            for number, first, stop in zip(numbers, firsts, [*firsts[1:], len(rows)], strict=True):
                begun.append(centred[first:stop])
                if rows[stop - 1] + 1 == borders[number + 1]:
                    ready.append((int(number), begun[0] if len(begun) == 1 else torch.cat(begun)))
                    begun = []
            if begun:  # of the block only its end has to be kept
                begun[-1] = begun[-1].clone()
            yield ready


def stored(raw: Float32[np.ndarray, " value"], scale: Float32[np.ndarray, " value"]) -> Real[np.ndarray, " value"]:
    """The values that the v1 code stores for activations; `scale` is the largest activation of each value's latent."""
    return np.where(raw > 0, np.ceil(10 * (raw / np.where(scale > 0, scale, 1))), 0)
