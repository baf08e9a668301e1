"""95 % intervals. Each function says over what it generalises: features, documents or seeds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from scipy import stats

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
AT_ONCE = 2**22  # draws held in memory
Samples = Mapping[str, Mapping[str, np.ndarray]]  # by what was measured and metric: a value in each resample


class Interval(NamedTuple):
    """Both NaN where there is nothing to say."""

    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan)


def share_interval(count: int, n: int) -> Interval:
    """Of a share, over features: Wilson's."""
    if n == 0:
        return UNKNOWN
    return Interval(*stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson"))


def mean_interval(values: Float[np.ndarray, " feature"], seed: int, resamples: int) -> Interval:
    """Of a mean, over features: percentile bootstrap. UNKNOWN below two values."""
    if len(values) < 2:
        return UNKNOWN
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=1 + AT_ONCE // len(values),
        confidence_level=LEVEL,
        method="percentile",
        rng=seed,
    )
    return Interval(*map(float, found.confidence_interval))


def t_interval(values: Float[np.ndarray, " seed"]) -> Interval:
    """Of a mean, over seeds, few as they are: Student's. UNKNOWN below two values."""
    if len(values) < 2:
        return UNKNOWN
    reach = stats.t.ppf(TAILS[1], len(values) - 1) * stats.sem(values)
    return Interval(float(values.mean() - reach), float(values.mean() + reach))


def document_weights(documents: int, resamples: int, seed: int) -> UInt8[np.ndarray, "resample document"]:
    """How often each resample draws each document (Poisson(1)): weights of sums kept by document."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.poisson(1, documents).astype(np.uint8) for _ in range(resamples)])


def percentiles(samples: Float[np.ndarray, " resample"]) -> Interval:
    """Of a statistic, over what was resampled; resamples where it is NaN are left out."""
    defined = samples[~np.isnan(samples)]
    return Interval(*map(float, np.quantile(defined, TAILS))) if len(defined) else UNKNOWN
