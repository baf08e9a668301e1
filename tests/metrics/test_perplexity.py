from dataclasses import replace

import numpy as np
import pytest

from bisae.lm.losses import DocumentLosses
from bisae.metrics.perplexity import perplexities, perplexity, perplexity_difference

LOSSES = DocumentLosses(
    languages=("en", "ja"),
    language=np.array([0, 1, 0]),
    nats=np.array([2.0, 6.0, 4.0]),
    tokens=np.array([2, 2, 1]),
)


def many(seed: int) -> DocumentLosses:
    """200 documents, very unlike each other."""
    random = np.random.default_rng(seed)
    tokens = random.integers(5, 50, 200)
    return DocumentLosses(("en", "ja"), np.arange(200) % 2, tokens * random.uniform(2, 4, 200), tokens)


def test_perplexity_is_weighted_by_tokens_and_all_pools_them() -> None:
    found = perplexity(LOSSES, None, resamples=10, seed=0)
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {"en": np.exp(6 / 3), "ja": np.exp(6 / 2), "all": np.exp(12 / 5)}
    )


def test_all_can_be_a_mix_of_the_languages_perplexities() -> None:
    found = perplexity(LOSSES, {"en": 3.0, "ja": 1.0}, resamples=10, seed=0)
    assert found["all"].value == pytest.approx((3 * np.exp(2) + np.exp(3)) / 4)


def test_a_document_drawn_twice_counts_twice_and_a_language_not_drawn_has_none() -> None:
    found = perplexities(LOSSES, np.array([[2, 0, 1]]), None)
    assert found["en"] == pytest.approx(np.exp(8 / 5)) and found["all"] == pytest.approx(np.exp(8 / 5))
    assert np.isnan(found["ja"]).all()


def test_a_difference_is_paired_by_document() -> None:
    losses = many(0)
    better = replace(losses, nats=losses.nats - 0.01 * losses.tokens)
    found = perplexity_difference(better, losses, None, resamples=200, seed=0)
    for name, one in found.items():
        before, after = (perplexity(which, None, 200, 0)[name] for which in (losses, better))
        assert one.value == pytest.approx(after.value - before.value)
        assert one.low <= one.value <= one.high < 0 and after.low < before.value < after.high
        assert one.high - one.low < (before.high - before.low) / 20


def test_an_interval_covers_what_the_documents_were_drawn_from() -> None:
    covered = []
    for seed in range(40):
        one = perplexity(many(seed), None, resamples=200, seed=0)["all"]
        covered.append(one.low < np.exp(3) < one.high)
    assert sum(covered) >= 33


def test_losses_of_other_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same documents"):
        perplexity_difference(LOSSES, replace(LOSSES, tokens=np.array([2, 2, 2])), None, 10, 0)
