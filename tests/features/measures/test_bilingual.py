import pandas as pd
import pytest

from bisae.features.measures.bilingual import bilingual_by_chance, is_bilingual

FEATURES = pd.DataFrame(
    {
        "class": ["Mixed", "Mixed", "Mixed", "English", "dead"],
        "single_token": [False, False, True, False, False],
        "monosemanticity": [0.9, 0.5, 1.0, 0.9, float("nan")],
        "monosemanticity_null_high": [0.8, 0.5, 0.8, 0.8, float("nan")],
        "monosemanticity_null_above": [0.02, 0.01, 0.5, 0.3, float("nan")],
        "cross_q": [0.05, 0.06, 1.0, float("nan"), float("nan")],
        "cross_null": [0.01, 0.02, 0.0, float("nan"), float("nan")],
        "alignment": [0.1, 0.9, 0.9, float("nan"), float("nan")],
        "aligned": [False, True, True, False, False],
        "aligned_shuffled": [False, False, True, False, False],
    }
)


def test_a_bilingual_feature_is_mixed_and_its_meaning_is_not_chance() -> None:
    assert is_bilingual(FEATURES, "monosemantic", 0.05).tolist() == [True, False, False, False, False]
    assert bilingual_by_chance(FEATURES, "monosemantic").tolist() == [0.02, 0.01, 0, 0, 0]


def test_a_bilingual_feature_has_a_false_discovery_rate_within_the_level() -> None:
    assert is_bilingual(FEATURES, "cross", 0.05).tolist() == [True, False, False, False, False]
    assert bilingual_by_chance(FEATURES, "cross").tolist() == [0.01, 0.02, 0, 0, 0]


def test_by_alignment_the_aligned_features_are_the_bilingual_ones() -> None:
    assert is_bilingual(FEATURES, "alignment", 0.05).tolist() == FEATURES["aligned"].tolist()
    assert bilingual_by_chance(FEATURES, "alignment").mean() == pytest.approx(1 / 5)
    assert bilingual_by_chance(FEATURES.assign(alignment=float("nan")), "alignment").empty
