import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from bisae.features.measures.language import (
    DEAD,
    MIXED,
    agreement,
    check_script_languages,
    class_names,
    classes,
    feature_language,
    lape_classes,
    lape_kept,
    monolinguality,
    script_of_rows,
    script_of_tokens,
    shares_by_threshold,
)
from bisae.runtime.errors import Refused

EN, JA = [(" dog", 1.0)], [("犬", 1.0)]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        *((text, 0) for text in (" dog", "don't", '"(a),.-', "A b", ".", "　a　b")),
        *((text, 1) for text in ("犬", "", " ", "<0x0A>", ":", "/", "é", "ａ", "?", "a1", "1.5", "１", "²", "、")),
        *((text, 2) for text in ("7", " 2048 ")),
    ],
)
def test_the_script_of_a_token_is_told_by_its_characters(text: str, script: int) -> None:
    assert script_of_tokens([text]).tolist() == [script]


def test_a_language_needs_strictly_more_than_the_threshold() -> None:
    assert feature_language([EN] * 9 + [JA]) == ("Mixed", {"en": 9, "ja": 1})
    assert feature_language([EN] * 10 + [JA]) == ("English", {"en": 10, "ja": 1})
    assert feature_language([EN] + [JA] * 10) == ("Japanese", {"en": 1, "ja": 10})
    assert feature_language([EN] * 3 + [JA] * 2, threshold=0.5)[0] == "English"


def test_no_contexts_are_dead_and_an_empty_one_is_refused() -> None:
    assert feature_language([]) == ("dead", {"en": 0, "ja": 0})
    with pytest.raises(ValueError, match="no tokens"):
        feature_language([EN, []])


@pytest.mark.parametrize("threshold", [0.49, 1.0, -1.0, float("nan")])
def test_a_threshold_that_two_languages_or_none_could_pass_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="^threshold=.*at least 0.5 and below 1"):
        feature_language([EN] * 4 + [JA] * 6, threshold)


def test_an_activation_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number in the context"):
        feature_language([[("dog", float("nan")), ("犬", 1.0)]])


@pytest.mark.parametrize(
    ("context", "language"),
    [
        ([("a", 1), ("犬", 3), ("b", 2)], "ja"),
        ([("a", 2), ("犬", 2)], "en"),
        ([("犬", 2), ("a", 2)], "ja"),
        ([("a", 0), ("1", 0), ("2", 5), ("犬", 0)], "en"),
        ([("1", 5), ("犬", 0), ("a", 0)], "en"),
        ([("1", 5), ("犬", 0), ("2", 0)], "ja"),
        ([("1", 0), ("2", 5)], "ja"),
    ],
    ids=["largest", "first of equals", "not English first", "before digits", "wraps", "wraps on", "digits only"],
)
def test_the_strongest_token_decides_and_digits_are_what_stands_before_them(
    context: list[tuple[str, float]], language: str
) -> None:
    assert feature_language([context])[1] == {"en": 0, "ja": 0} | {language: 1}


TEXTS = [" dog", "犬", "1", "23", "、", "b", ""]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(range(len(TEXTS))), st.integers(0, 3)), min_size=1), max_size=12),
    st.sampled_from([0.5, 0.75, 0.9]),
)
def test_rows_counted_at_once_give_each_feature_the_same_class(
    contexts: list[list[tuple[int, int]]], threshold: float
) -> None:
    ids = np.array([token for context in contexts for token, _ in context], np.int32)
    sequence = np.repeat(np.arange(len(contexts), dtype=np.int32), [len(context) for context in contexts])
    script = script_of_rows(ids, sequence, script_of_tokens(TEXTS))
    counts, row = np.zeros((1, 2), np.int64), 0
    for context in contexts:
        counts[0, script[row + int(np.argmax([value for _, value in context]))]] += 1
        row += len(context)
    texts = [[(TEXTS[token], value) for token, value in context] for context in contexts]
    language, counted = feature_language(texts, threshold)
    assert classes(counts, threshold, ["English", "Japanese"]).tolist() == [language]
    assert counts[0].tolist() == [counted["en"], counted["ja"]]


def test_classes_take_rates_and_any_languages() -> None:
    rates = np.array([[0.95, 0.05, 0], [0, 0, 1e-9], [1, 1, 1], [0, 0, 0]])
    assert classes(rates, 0.9, ["fr", "de", "ja"]).tolist() == ["fr", "ja", "Mixed", "dead"]
    assert class_names(["en", "fr", "ja"]) == {"en": "English", "fr": "fr", "ja": "Japanese"}


def test_shares_follow_the_threshold_and_leave_dead_features_out() -> None:
    counts = np.array([[10, 0], [8, 2], [2, 8], [5, 5], [0, 0]])
    shares = shares_by_threshold(counts, np.array([0.5, 0.8, 0.7]))
    assert shares.tolist() == [[0.5, 0.25, 0.25], [0.25, 0, 0.75], [0.5, 0.25, 0.25]]
    assert np.isnan(shares_by_threshold(counts[-1:], np.array([0.5]))).all()


def test_the_script_rule_is_refused_for_other_languages() -> None:
    check_script_languages(["ja", "en"])
    for languages in (["en", "fr"], ["en"], ["en", "ja", "fr"]):
        with pytest.raises(Refused, match="language=script: .* use language=document"):
            check_script_languages(languages)


def test_space_marks_are_read_as_spaces() -> None:
    assert script_of_tokens(["▁dog", "▁", "▁12", "▁犬"]).tolist() == [0, 1, 2, 1]
    assert feature_language([[("▁dog", 1.0)]])[0] == "English"


def test_lape_names_the_one_language_in_which_a_feature_fires_twice_as_often_as_in_any_other() -> None:
    rates = np.array([[0.5, 0.24, 0.2], [0.5, 0.25, 0.0], [0.1, 0.1, 0.1], [0.0, 0.0, 1e-9], [0.0, 0.0, 0.0]])
    assert lape_classes(rates, ["a", "b", "c"]).tolist() == ["a", MIXED, MIXED, "c", DEAD]


def test_lape_keeps_features_of_nearly_all_sequences_and_of_many_tokens_as_its_published_code_does() -> None:
    """Its thresholds are cut to whole numbers: 98 of 101 sequences, more than 100 of 1005 tokens."""
    of_sequences, of_tokens = np.array([101, 50]), np.array([1005, 2000])
    sequences = np.array([[98, 0], [97, 48], [98, 0], [97, 49], [0, 49]])
    firings = np.array([[101, 0], [900, 900], [100, 200], [0, 201], [101, 0]])
    assert lape_kept(sequences, of_sequences, firings, of_tokens).tolist() == [True, False, False, True, True]
    few = np.array([[97, 0]]), np.array([101, 0]), np.array([[900, 0]]), np.array([1005, 0])
    assert not lape_kept(*few)[0]  # of the other language there is no text


def test_monolinguality_is_a_mean_minus_the_mean_of_the_others() -> None:
    means = np.array([[4.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(monolinguality(means), [[2.5, -2.0, -0.5], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(monolinguality(means[:, :1]), means[:, :1])  # a text of one language


def test_agreement_is_the_share_of_equal_labels_and_cohens_kappa() -> None:
    random = np.random.default_rng(0)
    one = random.choice(["English", "Japanese", MIXED], 200)
    other = np.where(random.random(200) < 0.6, one, random.choice(["English", MIXED], 200))
    assert agreement(one, other) == pytest.approx((np.mean(one == other), cohen_kappa_score(one, other)))
    same, kappa = agreement(one[one == MIXED], one[one == MIXED])
    assert same == 1 and np.isnan(kappa) and np.isnan(agreement(one[:0], one[:0])).all()
