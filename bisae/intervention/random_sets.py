"""Random sets of features as controls of a kind: as many features, each about as active as one of the kind."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from bisae.features.measures.language import DEAD

BLOCK = 50  # features in a block


@dataclass(frozen=True, eq=False)
class RandomSets:
    """Draws random sets that match the features in `like` in number and activity.

    The features are sorted by their total activation on the analysed text (columns `mass_<language>`) and cut into
    blocks of `BLOCK`; each block gives as many random features as it has in `like`.
    """

    features: pd.DataFrame
    like: Bool[np.ndarray, " latent"]

    @property
    def apart(self) -> bool:
        """True if features outside `like` suffice to draw from: `like` is under half of each block."""
        return bool((self._counts < self._sizes / 2).all())

    @property
    def differ(self) -> bool:
        """True if more than one set can be drawn."""
        return bool(((self._counts > 0) & (self._counts < self._sizes)).any())

    def draw(self, seed: int, apart: bool) -> Bool[np.ndarray, " latent"]:
        """Draw one set: from the features outside `like` if `apart`, else from all."""
        rng, chosen = np.random.default_rng(seed), np.zeros(len(self.features), bool)
        for block in self._blocks:
            supply = block[~self.like[block]] if apart else block
            chosen[rng.choice(supply, np.count_nonzero(self.like[block]), replace=False)] = True
        return chosen

    @property
    def variances(self) -> tuple[float, float]:
        """Two variances of the sum over a set's features, if `like` were a random set too.

        The first is that of the difference between `like` and the mean of all sets of the other features, the second
        that over those sets. Where n of a block's N features are in `like`, they are n / (1 - n/N) and
        n (1 - 2n/N) / (1 - n/N) times the variance over features, which is assumed to grow with the square of their
        activation.
        """
        share = self._counts / self._sizes
        spread = self._counts * [np.mean(self._mass[block] ** 2) for block in self._blocks] / (1 - share)
        return float(spread.sum()), float((spread * (1 - 2 * share)).sum())

    @cached_property
    def _mass(self) -> Float64[np.ndarray, " latent"]:
        return self.features.filter(regex="^mass_").sum(axis=1).to_numpy(dtype=float)

    @cached_property
    def _blocks(self) -> list[Int[np.ndarray, " member"]]:
        alive = np.flatnonzero((self.features["class"] != DEAD).to_numpy() | self.like)
        order = alive[np.argsort(self._mass[alive], kind="stable")]
        return [block for block in np.array_split(order, max(1, len(order) // BLOCK)) if len(block)]

    @property
    def _counts(self) -> Float64[np.ndarray, " block"]:
        return np.array([np.count_nonzero(self.like[block]) for block in self._blocks], float)

    @property
    def _sizes(self) -> Float64[np.ndarray, " block"]:
        return np.array([len(block) for block in self._blocks], float)


def widening(layers: Iterable[RandomSets]) -> float:
    """Factor from the variance over drawn sets to the variance of the difference between a random set and their mean.

    It is above 1 where sets are drawn from the features outside the kind: they overlap each other, but not the kind.
    It is 1 where no features are drawn.
    """
    difference, over_sets = (sum(parts) for parts in zip(*(sets.variances for sets in layers), strict=True))
    return float(difference / over_sets) if over_sets > 0 else 1.0
