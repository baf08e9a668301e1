"""95 % intervals. Each function says over what it generalises: features, documents or seeds."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, Num, UInt8
from scipy import stats

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
BLOCKS = 19  # of documents
# The blocks that a part of the jackknife leaves out, moved on by 0 ... 18: of this difference set (squares mod 19)
# every block is left out by 9 parts, and every two by 4: of a mean over blocks the parts give the variance exactly.
LEFT_OUT = (np.array([1, 4, 5, 6, 7, 9, 11, 16, 17]) + np.arange(BLOCKS)[:, None]) % BLOCKS
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
    return Interval(*stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson"))


def t_interval(values: Float[np.ndarray, " value"]) -> Interval:
    """Of a mean, over features or seeds: Student's. UNKNOWN below two values.

    For few and skewed values it covers the mean more often than the bootstrap does, BCa or not; for many they agree.
    """
    if len(values) < 2:
        return UNKNOWN
    return _around(float(values.mean()), float(stats.sem(values)), len(values) - 1)


def document_blocks(stratum: Integer[np.ndarray, " document"], seed: int) -> Int64[np.ndarray, " document"]:
    """The block (0 ... `BLOCKS` - 1) of each document, drawn; of each stratum blocks have equally many, or one more."""
    block = np.empty(len(stratum), np.int64)
    block[np.lexsort((np.random.default_rng(seed).random(len(stratum)), stratum))] = np.arange(len(stratum)) % BLOCKS
    return block


def jackknife_interval(value: float, parts: Float[np.ndarray, " part"]) -> Interval:
    """Of a statistic, over documents: Student's, from its values without the blocks of each row of `LEFT_OUT`.

    About half is left out at a time, since shares of classes are steps: without a twentieth of the text few features
    change their class, and errors come out half as large again as they are. UNKNOWN where the statistic is not defined
    in some part.
    """
    if np.isnan(parts).any():
        return UNKNOWN
    left = LEFT_OUT.shape[1]
    return _around(value, float(np.sqrt((BLOCKS - left) / left * parts.var())), BLOCKS - 1)


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


def estimates(
    statistics: Callable[[Num[np.ndarray, "resample document"]], Statistics], documents: int, resamples: int, seed: int
) -> dict[str, Estimate]:
    """The statistics of all documents, with intervals from Poisson resamples of documents."""
    drawn, actual = (statistics(one) for one in (document_weights(documents, resamples, seed), np.ones((1, documents))))
    return {name: Estimate(float(actual[name][0]), *percentiles(drawn[name])) for name in actual}
