"""Where the peaks of contexts can be, and the values that stand for activations in a context."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int16, Int64, Real, Shaped


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


def in_order_of_pairs(latent: Int64[np.ndarray, " pair"], found: Sequence[tuple[np.ndarray, ...]]) -> Steps:
    """From pieces in any order: some pairs, how many steps each has, and all these steps' positions and values."""
    if not found:
        return Steps(latent, np.zeros(1, np.int64), np.empty(0, np.int16), np.empty(0, np.float32))
    pairs, counts, position, value = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(pairs)
    read = Steps(latent[pairs], np.append(0, np.cumsum(counts)), position, value).in_reach()
    starts, counts = read.offsets[order], np.diff(read.offsets)[order]
    offsets = np.append(0, np.cumsum(counts))
    at = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
    return Steps(latent, offsets, read.position[at], read.value[at])


def stored(raw: Float32[np.ndarray, " value"], scale: Float32[np.ndarray, " value"]) -> Real[np.ndarray, " value"]:
    """The values that the v1 code stores for activations; `scale` is the largest activation of each value's latent."""
    return np.where(raw > 0, np.ceil(10 * (raw / np.where(scale > 0, scale, 1))), 0)
