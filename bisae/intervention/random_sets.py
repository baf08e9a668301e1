"""Random sets of features, the control of a kind: as many, each about as active as one of those it stands for."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int

from bisae.features.measures.language import DEAD

BLOCK = 50  # features to draw one of


@dataclass(frozen=True, eq=False)
class RandomSets:
    """Those that stand for the features in `like`.

    Features are put in order of their total activation on the analysed text (columns `mass_<language>`) and cut into
    blocks of `BLOCK`; of each block as many are drawn as are in `like`.
    """

    features: pd.DataFrame
    like: Bool[np.ndarray, " latent"]

    @property
    def apart(self) -> bool:
        """Whether enough others are there to draw from: `like` is under half of each block."""
        return bool((self._counts < self._sizes / 2).all())

    @property
    def differ(self) -> bool:
        """Whether there is more than one set."""
        return bool(((self._counts > 0) & (self._counts < self._sizes)).any())

    def draw(self, seed: int, apart: bool) -> Bool[np.ndarray, " latent"]:
        """Of the features that are not in `like` if `apart`, else of whatever kind."""
        rng, chosen = np.random.default_rng(seed), np.zeros(len(self.features), bool)
        for block in self._blocks:
            supply = block[~self.like[block]] if apart else block
            chosen[rng.choice(supply, np.count_nonzero(self.like[block]), replace=False)] = True
        return chosen

    @property
    def variances(self) -> tuple[float, float]:
        """If `like` were a random set too, of what a set's features add up to: the variance of the difference between
        `like` and the mean of all sets of the other features, and the variance over those sets.

        Where n of a block's N features are in `like`, n / (1 - n/N) and n (1 - 2n/N) / (1 - n/N) times the variance
        from feature to feature, which is taken to grow with the square of their activation.
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
    """By what the variance over sets drawn from the other features is multiplied, to be that of the difference of a
    random set to them: they resemble each other more than what they are drawn without. 1 where there is nothing.
    """
    difference, over_sets = (sum(parts) for parts in zip(*(sets.variances for sets in layers), strict=True))
    return float(difference / over_sets) if over_sets > 0 else 1.0
