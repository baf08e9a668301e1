"""The text of a planted world and its words."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bisae.corpus.corpus import Corpus, CorpusWithLexicon
from bisae.corpus.pairs import Sentences
from bisae.features.measures.language import script_of_tokens
from bisae.planted.lexicon import SHARED_TOKENS, Lexicon
from bisae.runtime.errors import Refused
from tests.planted.worlds import LEXICON, corpus, model, node

OTHER: dict[str, Any] = {
    "lexicon": {**LEXICON, "seed": 1},
    "splits": {"sae": 41, "validation": 10},
    "pairs": 31,
    "topics": 4,
    "on_topic": 3,
    "zipf": 0.5,
    "sentences": 5,
    "words": 8,
    "loans": 0.5,
    "seed": 1,
}
FIRST = "molu nuza daka beni go , ravo 1 leto na leto na nila tu , tufi ."
MEANING = dict(zip(corpus()._words.words, corpus()._words.token_meaning.tolist(), strict=True))


def meanings(text: str, language: int) -> list[int]:
    """The meanings of a text's content words, as they are said in the first language."""
    found = [MEANING[word] for word in text.split() if MEANING[word] < LEXICON["meanings"]]
    return found[::-1] if language else found


def test_it_is_a_corpus_with_sentence_pairs_and_a_lexicon() -> None:
    assert isinstance(corpus(), Corpus) and isinstance(corpus(), Sentences) and isinstance(corpus(), CorpusWithLexicon)


def test_each_word_has_one_id_one_language_and_one_meaning() -> None:
    words = corpus()._words
    assert len(set(words.words)) == words.size == 1 + len(SHARED_TOKENS) + 2 * (6 + 24 * 2)
    for language in range(2):
        for meaning, forms in enumerate(words.content(language).tolist()):
            assert words.token_meaning[forms].tolist() == [meaning] * 2
            assert words.token_language[forms].tolist() == [language] * 2
        assert (words.token_language[words.function(language)] == language).all()
    function = np.concatenate([words.function(language) for language in range(2)])
    assert len(set(words.token_meaning[function].tolist())) == 12 and words.token_meaning[function].min() >= 24
    spelled = corpus().language_of_tokens(["▁" + word for word in words.words])
    np.testing.assert_array_equal(spelled, words.token_language)


def test_a_document_says_the_same_in_every_language() -> None:
    text = corpus(loans=0, sentences=1)
    by_number = [dict(text.documents("sae", language)) for language in range(2)]
    assert set(by_number[0]) == set(by_number[1]) == set(range(40))
    for number in range(40):
        assert meanings(by_number[0][number], 0) == meanings(by_number[1][number], 1)


def test_sentence_pairs_come_in_order_and_say_the_same() -> None:
    first, second = (list(corpus(loans=0).documents("pairs", language)) for language in range(2))
    assert [document.number for document in first] == list(range(30)) == [document.number for document in second]
    assert all(meanings(a.text, 0) == meanings(b.text, 1) for a, b in zip(first, second, strict=True))


def test_words_are_of_the_documents_language_but_for_loans_and_what_is_shared() -> None:
    for loans in (0, 0.5):
        text = corpus(loans=loans)
        for language in range(2):
            found = [word for document in text.documents("sae", language) for word in document.text.split()]
            of = text.language_of_tokens(found)
            share = (of == 1 - language).sum() / (of >= 0).sum()
            assert share == 0 if not loans else 0.1 < share < 0.25  # of the content words a quarter is of the other
            assert {word for word, number in zip(found, of.tolist(), strict=True) if number < 0} <= set(SHARED_TOKENS)


def test_the_text_never_changes_and_no_two_documents_of_it_are_the_same() -> None:
    def read() -> list[str]:
        places = [(split, language) for split in ("sae", "validation") for language in range(2)]
        return [document.text for place in places for document in corpus().documents(*place)]

    assert read() == read() and len(set(read())) == len(read()) == 100
    assert next(corpus().documents("pairs", 0)).text == FIRST  # in every version of NumPy


def test_often_and_seldom_words_follow_zipf_and_topics() -> None:
    plain = Counter[int]()
    for document in corpus(zipf=1, on_topic=0, splits={"sae": 600}, loans=0).documents("sae", 0):
        plain.update(meanings(document.text, 0))
    shares = np.array([plain[meaning] for meaning in range(24)]) / plain.total()
    expected = 1 / np.arange(1, 25) / (1 / np.arange(1, 25)).sum()
    np.testing.assert_allclose(shares, expected, rtol=0.15)
    document = next(corpus(on_topic=1e9, sentences=40).documents("sae", 0))
    assert len(set(meanings(document.text, 0))) < 24 / 2  # one topic of three


@pytest.mark.parametrize("key", OTHER)
def test_every_setting_changes_the_checksum_and_no_other_split_does(key: str) -> None:
    assert set(OTHER) == set(node("corpus")) - {"name"}
    assert corpus(**{key: OTHER[key]}).checksum("sae") != corpus().checksum("sae")
    assert (corpus(**{key: OTHER[key]}).checksum("validation") == corpus().checksum("validation")) == (key == "splits")
    assert corpus().checksum("sae") != corpus().checksum("validation")


def test_more_languages_have_words_of_their_own(tmp_path: Path) -> None:
    lexicon = {**LEXICON, "languages": ["en", "ja", "ru", "el"]}
    text = corpus(lexicon=lexicon, loans=0)
    assert text.languages == ("en", "ja", "ru", "el") and len(set(text._words.words)) == text._words.size
    for language in range(4):
        found = {word for document in islice(text.documents("sae", language), 5) for word in document.text.split()}
        assert set(text.language_of_tokens(sorted(found)).tolist()) == {-1, language}
    truth = model(tmp_path, lexicon=lexicon).truth()
    assert set(truth.of_language.sum(1).tolist()) >= {1, 4}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("languages", ["en"]),
        ("languages", ["en", "en"]),
        ("languages", ["English", "ja"]),
        ("languages", "en"),
        ("meanings", 0),
        ("meanings", 2.5),
        ("forms", 1),
        ("function_words", 0),
        ("seed", -1),
        ("seed", True),
    ],
)
def test_a_wrong_lexicon_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        corpus(lexicon={**LEXICON, key: value})
    assert refused.value.field == f"lexicon.{key}"


def test_a_lexicon_with_other_keys_is_refused() -> None:
    for wrong in ({"languages": ["en", "ja"]}, {**LEXICON, "verbs": 3}):
        with pytest.raises(Refused, match="must have the keys"):
            Lexicon.of(wrong)


def test_a_split_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        corpus().checksum("test")
    assert refused.value.field == "split"
    with pytest.raises(Refused):
        corpus(splits={"pairs": 3})


def test_words_are_in_the_script_of_their_language_whatever_its_place() -> None:
    for languages, of_scripts in ((["ja", "en"], [1, 0]), (["en", "fr"], [0, 0])):
        words = corpus(lexicon={**LEXICON, "languages": languages})._words
        script = script_of_tokens(words.words)
        for language, expected in enumerate(of_scripts):
            assert (script[words.content(language)] == expected).all()
        assert len(set(words.words)) == words.size
