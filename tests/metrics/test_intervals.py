import numpy as np
import pytest
from scipy import stats

from bisae.metrics.intervals import (
    document_weights,
    draws,
    further_interval,
    percentiles,
    resampled_interval,
    share_interval,
    t_interval,
)


def test_a_share_has_wilsons_interval() -> None:
    z, n, share = stats.norm.ppf(0.975), 40, 0.25
    middle, reach = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    expected = (middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)
    assert share_interval(10, n) == pytest.approx(expected)
    assert share_interval(0, 40).low == 0 < share_interval(0, 40).high
    assert np.isnan(share_interval(0, 0)).all()


@pytest.mark.slow
def test_the_interval_of_a_mean_of_few_skewed_values_covers_it_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).exponential(size=(2000, 20))
    covered = [low <= 1 <= high for low, high in map(t_interval, samples)]
    assert 0.91 < np.mean(covered) < 0.96  # the percentile bootstrap: 0.90


def test_the_interval_from_resamples_of_a_mean_covers_it_as_often_as_it_says() -> None:
    """Documents of two languages with other means: only what differs within a language is by chance."""
    language, random, covered = np.arange(60) % 3 // 2, np.random.default_rng(0), []
    for seed in range(500):
        values = random.normal(size=60) + 5 * language
        samples = draws(language, seed) @ values / 60
        low, high = resampled_interval(values.mean(), samples)
        covered.append(low <= 5 / 3 <= high)
    assert abs(np.mean(covered) - 0.95) < 0.02 + 3 * np.sqrt(0.95 * 0.05 / 500)  # as meant, and three standard errors
    assert np.isnan(resampled_interval(0.5, np.array([0.4, np.nan, 0.6]))).all()


def test_resamples_have_as_many_documents_of_each_language_as_there_are() -> None:
    language = np.arange(200) % 3
    drawn = draws(language, 0)
    for one in range(3):
        assert (drawn[:, language == one].sum(1) == (language == one).sum()).all()
    assert (
        np.abs(np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]).max() < 0.35 and (drawn != draws(language, 1)).any()
    )


def test_seeds_have_students_interval() -> None:
    values = np.array([0.1, 0.4, 0.25])
    assert t_interval(values) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert t_interval(np.array([0.5, 0.5])) == (0.5, 0.5)


def test_a_further_value_lies_where_it_is_said_to_as_often_as_it_is_said() -> None:
    drawn = np.random.default_rng(0).normal(3, 2, size=(4000, 4))
    inside = [
        low <= last <= high for (low, high), last in zip(map(further_interval, drawn[:, :3]), drawn[:, 3], strict=True)
    ]
    assert abs(np.mean(inside) - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 4000)
    assert further_interval(np.array([0.5, 0.5])) == (0.5, 0.5)


@pytest.mark.parametrize("values", [np.array([]), np.array([0.5])])
def test_of_less_than_two_values_nothing_is_said(values: np.ndarray) -> None:
    assert np.isnan(t_interval(values)).all() and np.isnan(further_interval(values)).all()


def test_over_documents_a_mean_is_less_sure_than_over_their_tokens() -> None:
    """Tokens of a document are alike: sums by document, weighted by resample, show how little is known."""
    topic = np.random.default_rng(0).normal(size=60)
    tokens = np.repeat(topic, 50)
    weights = document_weights(60, 2000, seed=0).astype(float)
    low, high = percentiles(weights @ (topic * 50) / (weights @ np.full(60, 50.0)))
    assert high - low == pytest.approx(2 * 1.96 * stats.sem(topic), rel=0.15)
    over_tokens = t_interval(tokens)
    assert high - low > 4 * (over_tokens.high - over_tokens.low)


def test_resamples_draw_documents_independently_about_once() -> None:
    weights = document_weights(400, 300, seed=0)
    assert weights.shape == (300, 400) and weights.dtype == np.uint8
    assert weights.mean() == pytest.approx(1, abs=0.02) and weights.var() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(weights[:2])[0, 1]) < 0.15
    assert (weights == document_weights(400, 300, seed=0)).all() and (weights != document_weights(400, 300, 1)).any()


def test_resamples_without_a_value_are_left_out() -> None:
    samples = np.append(np.linspace(0, 1, 101), np.nan)
    assert percentiles(samples) == pytest.approx((0.025, 0.975))
    assert np.isnan(percentiles(samples[-1:])).all()
