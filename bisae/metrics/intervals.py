"""95 % intervals. Each function says over what it generalises: features, documents or seeds."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Integer, UInt8
from scipy import stats

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
BLOCKS = 20  # of documents, each left out once by the jackknife
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


def t_interval(values: Float[np.ndarray, " value"]) -> Interval:
    """Of a mean, over features or seeds: Student's. UNKNOWN below two values.

    For few and skewed values it covers the mean more often than the bootstrap does, BCa or not; for many they agree.
    """
    if len(values) < 2:
        return UNKNOWN
    return _around(float(values.mean()), float(stats.sem(values)), len(values) - 1)


def document_blocks(stratum: Integer[np.ndarray, " document"], seed: int) -> Int64[np.ndarray, " document"]:
    """The block (0 ... `BLOCKS` - 1) of each document, drawn; each has as many documents of each stratum, or one more.

    With fewer than `BLOCKS` documents there are as many blocks as documents.
    """
    block = np.empty(len(stratum), np.int64)
    block[np.lexsort((np.random.default_rng(seed).random(len(stratum)), stratum))] = np.arange(len(stratum)) % BLOCKS
    return block


def jackknife_interval(value: float, left_out: Float[np.ndarray, " block"]) -> Interval:
    """Of a statistic, over documents: Student's, from its values without each block of them.

    UNKNOWN below two blocks, or where it is not defined without one of them.
    """
    blocks = len(left_out)
    if blocks < 2 or np.isnan(left_out).any():
        return UNKNOWN
    return _around(value, float(np.sqrt((blocks - 1) * left_out.var())), blocks - 1)


def _around(value: float, error: float, freedom: int) -> Interval:
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
