"""95 % intervals. Each function says over what it generalises: features, documents or seeds."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Integer, Num, UInt8

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
RESAMPLES = 40  # of documents, where each costs an analysis
Samples = Mapping[str, Mapping[str, np.ndarray]]  # by what was measured and metric: a value in each resample
Statistics = dict[str, Float64[np.ndarray, " resample"]]


class Estimate(NamedTuple):
    """A value with its 95 % interval over documents."""

    value: float
    low: float
    high: float


class Interval(NamedTuple):
    """Both NaN where there is nothing to say."""

    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan)


def share_interval(count: int, n: int) -> Interval:
    """Of a share, over features: Wilson's."""
    if n == 0:
        return UNKNOWN
    from scipy import stats  # slow to import, also below

    return Interval(*stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson"))


def t_interval(values: Float[np.ndarray, " value"]) -> Interval:
    """Of a mean, over features or seeds: Student's. UNKNOWN below two values.

    For few and skewed values it covers the mean more often than the bootstrap does, BCa or not; for many they agree.
    """
    if len(values) < 2:
        return UNKNOWN
    from scipy import stats

    return _around(float(values.mean()), float(stats.sem(values)), len(values) - 1)


def further_interval(values: Float[np.ndarray, " value"]) -> Interval:
    """Of one more value that varies as these do, as that of another seed: Student's. UNKNOWN below two values."""
    if len(values) < 2:
        return UNKNOWN
    return _around(float(values.mean()), float(values.std(ddof=1)) * (1 + 1 / len(values)) ** 0.5, len(values) - 1)


def difference_interval(one: Float[np.ndarray, " value"], other: Float[np.ndarray, " value_"]) -> Interval:
    """Of the difference of two means, over seeds: Welch's; both may vary differently. UNKNOWN below two."""
    if min(len(one), len(other)) < 2:
        return UNKNOWN
    errors = [float(values.var(ddof=1)) / len(values) for values in (one, other)]
    if not sum(errors):
        return Interval(*[float(one.mean() - other.mean())] * 2)
    freedom = sum(errors) ** 2 / sum(e**2 / (len(v) - 1) for e, v in zip(errors, (one, other), strict=True))
    return _around(float(one.mean() - other.mean()), float(np.sqrt(sum(errors))), freedom)


def draws(stratum: Integer[np.ndarray, " document"], seed: int) -> UInt8[np.ndarray, "resample document"]:
    """How often each of `RESAMPLES` resamples holds each document: as many documents of each stratum as there are."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((RESAMPLES, len(stratum)), np.uint8)
    for one in np.unique(stratum):
        at = np.flatnonzero(stratum == one)
        for resample in drawn:
            resample[at] = np.bincount(rng.integers(len(at), size=len(at)), minlength=len(at))
    return drawn


def resampled_interval(value: float, samples: Float[np.ndarray, " resample"]) -> Interval:
    """Of a statistic, over documents: Student's around its value, from its values in resamples.

    Not their percentiles: a resample repeats documents, so that fewer tokens differ in it and scores are shifted.
    UNKNOWN where the statistic is not defined in some resample.
    """
    if np.isnan(samples).any():
        return UNKNOWN
    return _around(value, float(samples.std(ddof=1)), len(samples) - 1)


def _around(value: float, error: float, freedom: float | int) -> Interval:
    from scipy import stats

    reach = float(stats.t.ppf(TAILS[1], freedom)) * error
    return Interval(value - reach, value + reach)


def document_weights(documents: int, resamples: int, seed: int) -> UInt8[np.ndarray, "resample document"]:
    """How often each resample draws each document (Poisson(1)): weights of sums kept by document."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.poisson(1, documents).astype(np.uint8) for _ in range(resamples)])


def percentiles(samples: Float[np.ndarray, " resample"]) -> Interval:
    """Of a statistic, over what was resampled; resamples where it is NaN are left out."""
    defined = samples[~np.isnan(samples)]
    return Interval(*map(float, np.quantile(defined, TAILS))) if len(defined) else UNKNOWN


def estimates(
    statistics: Callable[[Num[np.ndarray, "resample document"]], Statistics], documents: int, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The statistics of all documents, with intervals from Poisson resamples of documents."""
    drawn, actual = (statistics(one) for one in (document_weights(documents, resamples, seed), np.ones((1, documents))))
    return {name: Estimate(float(actual[name][0]), *percentiles(drawn[name])) for name in actual}
