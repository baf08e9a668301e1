"""The contexts of a latent: the sequences that show what it responds to (config group `patterns`)."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int32, Int64

from bisae.features.codes import Firings
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Share


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
        found = sequence[firings.rows]
        new = np.ones(len(found), bool)
        np.not_equal(found[1:], found[:-1], out=new[1:])
        new[firings.offsets[:-1][np.diff(firings.offsets) > 0]] = True
        starts = np.flatnonzero(new)
        latent = np.repeat(np.arange(firings.latents), np.diff(np.searchsorted(starts, firings.offsets)))
        value = np.maximum.reduceat(firings.values, starts) if len(starts) else firings.values
        return cls(latent, found[starts], value)


@runtime_checkable
class Patterns(Protocol):
    """A rule that chooses a latent's contexts."""

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        """Indices into `peaks`, grouped by latent, in the order the contexts are shown.

        `maximum`: each latent's largest activation before ReLU and TopK.
        """
        ...


@runtime_checkable
class InOrder(Patterns, Protocol):
    """A rule that takes the first `contexts` that qualify, in an order that does not depend on the maximum."""

    contexts: int

    def ordered(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " qualified"]:
        """Indices of the peaks that qualify, grouped by latent, in the order in which they are taken."""
        ...

    def qualifies(self, value: Float32[np.ndarray, "..."], maximum: Float32[np.ndarray, "..."]) -> np.ndarray:
        """Whether peaks of such a value do, if the latent's maximum is this. With a lower one no fewer do."""
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
        return first_of(peaks, self.ordered(peaks, maximum), self.contexts)

    def ordered(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " qualified"]:
        return np.flatnonzero(self.qualifies(peaks.value, maximum[peaks.latent]))

    def qualifies(self, value: Float32[np.ndarray, "..."], maximum: Float32[np.ndarray, "..."]) -> np.ndarray:
        return value > np.float32(self.share) * maximum


@dataclass(frozen=True)
class Top:
    """The `contexts` sequences in which a latent fires most strongly, the strongest one first."""

    contexts: Count

    def chosen(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " context"]:
        return first_of(peaks, self.ordered(peaks, maximum), self.contexts)

    def ordered(self, peaks: Peaks, maximum: Float32[np.ndarray, " latent"]) -> Int64[np.ndarray, " qualified"]:
        return strongest_first(peaks)

    def qualifies(self, value: Float32[np.ndarray, "..."], maximum: Float32[np.ndarray, "..."]) -> np.ndarray:
        return np.ones(value.shape, bool)


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
        order = strongest_first(peaks)
        number = number_within(peaks.latent[order])
        of_latent = np.bincount(peaks.latent)[peaks.latent[order]]
        part = number * self.quantiles // of_latent
        by_part = np.lexsort((order, part, peaks.latent[order]))  # in the order of the text within a part
        key = peaks.latent[order] * self.quantiles + part
        return order[by_part][number_within(key[by_part]) < self.contexts // self.quantiles]


def strongest_first(peaks: Peaks) -> Int64[np.ndarray, " pair"]:
    """Indices of the peaks by latent, the strongest first, equal ones in the order of the text."""
    key = peaks.latent.astype(np.uint64) << np.uint64(32)
    key |= ~peaks.value.view(np.uint32)  # positive floats are in the order of their bits
    order = np.argsort(key)  # several times as fast as a stable sort
    key = key[order]
    equal = np.zeros(len(key), np.int64)
    np.cumsum(key[1:] != key[:-1], out=equal[1:])
    return np.sort(equal << 32 | order) & (2**32 - 1)


def first_of(peaks: Peaks, order: Int64[np.ndarray, " some"], contexts: int) -> Int64[np.ndarray, " context"]:
    """The first `contexts` of each latent among `order`, which is grouped by latent."""
    return order[number_within(peaks.latent[order]) < contexts]


def number_within(groups: Int64[np.ndarray, " item"]) -> Int64[np.ndarray, " item"]:
    """The place of each item in its group, from 0. The items of a group must be adjacent."""
    new = np.ones(len(groups), bool)
    np.not_equal(groups[1:], groups[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
