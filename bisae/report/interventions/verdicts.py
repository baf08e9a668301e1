"""Comparison of one set of features with another, or with sets drawn at random."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bisae.metrics.intervals import TAILS, percentiles

HIGHER, LOWER, ALIKE, UNDECIDED = "higher", "lower", "as random", "undecided"


class Change(NamedTuple):
    """Change of a metric against none, with the sign turned so that higher is better; `samples`: in each resample."""

    value: float
    samples: np.ndarray


class Verdict(NamedTuple):
    """The outcome of a comparison; `holds` is yes, no or undecided.

    Attributes:
        by: how much the first set is better.
        low, high: 95 % interval of `by`.
        draws: how many random sets it was compared with; 0 for a given set.
        s: standard deviation over the draws, else NaN.
        rank: place of the first set among itself and the draws, 1 is best; 0 for a given set.
    """

    by: float
    low: float
    high: float
    draws: int = 0
    s: float = np.nan
    rank: int = 0

    @property
    def holds(self) -> str:
        return "yes" if self.low > 0 else "no" if self.high < 0 else UNDECIDED


def against(first: Change, other: Change) -> Verdict:
    """Compare two given sets; the interval is over texts."""
    low, high = percentiles(np.atleast_1d(first.samples - other.samples))
    return Verdict(first.value - other.value, low, high)


def against_random(first: Change, drawn: Sequence[Change], widening: float) -> Verdict:
    """Compare a set with the mean of random sets; the interval is over draws and texts, NaN below two draws."""
    by = first.value - float(np.mean([draw.value for draw in drawn]))
    paired = np.atleast_1d(first.samples - np.mean([draw.samples for draw in drawn], axis=0))
    s = deviation([draw.value for draw in drawn])
    known = paired[~np.isnan(paired)]
    over_texts = float(np.var(known, ddof=1)) if len(known) > 1 else np.nan
    reached = reach(s, len(drawn), widening, over_texts)
    rank = 1 + sum(draw.value > first.value for draw in drawn)
    return Verdict(by, by - reached, by + reached, len(drawn), s, rank)


def beside_random(low: float, high: float, above: str = HIGHER, below: str = LOWER) -> str:
    """What the interval of the difference to random sets says; one draw has none, and says nothing."""
    return UNDECIDED if np.isnan(low) else above if low > 0 else below if high < 0 else ALIKE


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of values over draws; NaN for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else np.nan


def reach(s: float, draws: int, widening: float, over_texts: float) -> float:
    """Half the width of the 95 % interval of the difference between a random set and the mean of the draws.

    t(draws - 1) sqrt(s^2 (widening + 1 / draws) + over_texts): `s` is the standard deviation over draws, `widening`
    as in `bisae.intervention.random_sets`, `over_texts` the variance of the difference over texts.
    """
    if draws < 2:
        return np.nan
    from scipy import stats  # slow to import

    return float(stats.t.ppf(TAILS[1], draws - 1) * np.sqrt(s**2 * (widening + 1 / draws) + over_texts))
