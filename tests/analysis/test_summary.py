from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bisae.analysis.summary import summarize
from bisae.features.measures.language import DEAD
from bisae.features.resampled import sequence_draws
from tests.analysis.small_cell import LANGUAGES, described, rules


def test_shares_and_means_are_of_the_features_that_are_alive(tmp_path: Path) -> None:
    found, _, _, dense = described(tmp_path, rules())
    metrics, alive = summarize(found, LANGUAGES, rules()), found.features[found.features["class"] != DEAD]
    fires = (dense > 0).any(0)
    assert metrics["alive"] == len(alive) == fires.sum() < 12 and metrics["dead"] == pytest.approx(1 - fires.mean())
    for name in ("fr", "de", "Mixed"):
        assert metrics[name] == pytest.approx((alive["class"] == name).mean())
        assert metrics[f"firing_{name}"] == pytest.approx((alive["class_firings"] == name).mean())
    assert metrics["fr"] + metrics["de"] + metrics["Mixed"] == pytest.approx(1)  # type: ignore[operator]
    assert metrics["bilingual"] + metrics["random_mixed"] == pytest.approx(metrics["Mixed"])  # type: ignore[operator]
    many = alive[~alive["single_token"]]
    assert metrics["monosemanticity"] == pytest.approx(many["monosemanticity"].mean())
    assert metrics["monosemanticity_all"] == pytest.approx(alive["monosemanticity"].mean())
    assert metrics["monosemanticity_null"] == pytest.approx(many["monosemanticity_null"].mean())
    assert "aligned" not in metrics and metrics["alignment"] is None
    for name in ("Mixed", "monosemanticity", "by_token", "Mixed_doc", "monosemanticity_doc"):
        value = metrics[name.removesuffix("_doc")]
        assert metrics[f"{name}_low"] < value < metrics[f"{name}_high"]  # type: ignore[operator]


def test_intervals_over_documents_are_students_from_resamples(tmp_path: Path) -> None:
    found, chosen = described(tmp_path, rules())[0], rules()
    metrics = summarize(found, LANGUAGES, chosen)
    samples = np.nanmean(found.resampled.score, axis=1)
    reach = stats.t.ppf(0.975, len(samples) - 1) * np.std(samples, ddof=1)
    assert metrics["monosemanticity_doc_high"] == pytest.approx(min(1, metrics["monosemanticity"] + reach))


def test_a_resample_of_the_documents_has_the_contexts_that_its_text_has(tmp_path: Path) -> None:
    """Top chooses by firings only, so that in a resample everything is exact: languages counted by hand."""
    found, reading, _, dense = described(tmp_path, rules())
    tokens = reading.tokens
    peaks = np.maximum.reduceat(dense.astype(np.float16), tokens.borders[:-1])  # as codes are kept
    language = tokens.language[tokens.borders[:-1]]
    for resample, times in enumerate(sequence_draws(tokens, 0)):
        text = np.repeat(np.arange(len(peaks)), times)
        for latent in range(dense.shape[1]):
            top = text[np.argsort(-peaks[text, latent], kind="stable")[:20]]
            top = top[peaks[top, latent] > 0]
            counted = found.resampled.counted[resample, latent]
            assert counted.tolist() == np.bincount(language[top], minlength=2).tolist()


def test_over_few_documents_nothing_is_said(tmp_path: Path) -> None:
    found = described(tmp_path, rules())[0]
    few = replace(found, resampled=replace(found.resampled, documents=19))
    assert "Mixed_doc_low" in summarize(found, LANGUAGES, rules())
    assert "Mixed_doc_low" not in summarize(few, LANGUAGES, rules())


def test_with_shuffled_labels_random_features_are_what_they_were(tmp_path: Path) -> None:
    """The SAE and the activations are random: no language is in them to be lost."""
    metrics = summarize(described(tmp_path, rules())[0], LANGUAGES, rules())
    assert abs(metrics["Mixed_null"] - metrics["Mixed"]) < 0.3  # type: ignore[operator]


def test_a_cell_without_a_living_feature_has_no_shares(tmp_path: Path) -> None:
    found = described(tmp_path, rules())[0]
    found.features["class"] = DEAD
    metrics = summarize(found, LANGUAGES, rules())
    assert metrics["alive"] == 0 and metrics["dead"] == 1
    assert metrics["Mixed"] is metrics["monosemanticity"] is metrics["Mixed_low"] is None
    assert not any(isinstance(value, float) and np.isnan(value) for value in metrics.values())
