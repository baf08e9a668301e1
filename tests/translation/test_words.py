from pathlib import Path
from typing import Any

import pytest

from bisae.corpus.pairs import Pair, write_pairs
from bisae.runtime.errors import Refused
from bisae.translation import words
from bisae.translation.words import Word, WordSource

ENGLISH = ["I saw a {} here.", "The {} is good.", "We like this {} now.", "Where is the {}?", "A {} came."]
JAPANESE = [
    "ここで「{}」を見た。",
    "その「{}」は良い。",
    "今この「{}」が好きだ。",
    "その「{}」はどこ?",
    "「{}」が来た。",
]
NOUNS = {"dog": "犬", "cat": "猫", "book": "本", "Tokyo": "Tokyo"}


@pytest.fixture(scope="module")
def tokenizer(final: Any) -> Any:
    return final.load_tokenizer()


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    texts = [
        (e.format(one), j.format(other)) for one, other in NOUNS.items() for e, j in zip(ENGLISH, JAPANESE, strict=True)
    ]
    write_pairs(tmp_path / "pairs.tsv", ("en", "ja"), [Pair(number, row) for number, row in enumerate(texts)])
    return tmp_path / "pairs.tsv"


def read(tokenizer: Any, folder: Path, pairs: Path, file: str | None = None) -> dict[tuple[str, str], list[Word]]:
    return WordSource(file, str(pairs), 3, 0.8).read(tokenizer, "tokenizer", folder)


def test_words_that_are_each_others_best_translation_are_found_both_ways(
    tokenizer: Any, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read(tokenizer, tmp_path / "cache", pairs)
    there = {(word.text, word.translation) for word in found["en", "ja"]}
    assert {("dog", "犬"), ("cat", "猫"), ("book", "本")} <= there
    assert {(other, one) for one, other in there} == {(word.text, word.translation) for word in found["ja", "en"]}
    assert all(word.sentences == 5 and not word.shared for word in found["en", "ja"] if word.text in NOUNS)
    monkeypatch.setattr(words, "dice_lexicon", None)  # nothing is counted again
    assert read(tokenizer, tmp_path / "cache", pairs) == found


def test_words_of_a_file_are_counted_and_shared_ones_are_marked(tokenizer: Any, pairs: Path, tmp_path: Path) -> None:
    listed = [Pair(number, row) for number, row in enumerate([*((j, e) for e, j in NOUNS.items()), ("空", "sky")])]
    write_pairs(tmp_path / "words.tsv", ("ja", "en"), listed)
    found = read(tokenizer, tmp_path / "cache", pairs, str(tmp_path / "words.tsv"))["en", "ja"]
    assert {word.text: (word.translation, word.sentences, word.shared) for word in found} == {
        "dog": ("犬", 5, False),
        "cat": ("猫", 5, False),
        "book": ("本", 5, False),
        "Tokyo": ("Tokyo", 5, True),
    }


def test_listed_words_that_are_not_used_are_named(tokenizer: Any, pairs: Path, tmp_path: Path) -> None:
    listed = [Pair(number, row) for number, row in enumerate([("犬", "dog"), ("空", "sky"), ("ｃａｔ", "cat ")])]
    write_pairs(tmp_path / "words.tsv", ("ja", "en"), listed)
    source = WordSource(str(tmp_path / "words.tsv"), str(pairs), 3, 0.8)
    assert source.unused("en", ["dog", "cat"]) == ["sky"] and source.unused("ja", ["犬", "cat"]) == ["空"]
    assert WordSource(None, str(pairs), 3, 0.8).unused("en", []) == []


def test_files_that_cannot_be_read_or_do_not_fit_are_refused(tokenizer: Any, pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="words="):
        read(tokenizer, tmp_path, pairs, str(tmp_path / "nowhere.tsv"))
    write_pairs(tmp_path / "words.tsv", ("fr", "ja"), [Pair(0, ("chien", "犬"))])
    with pytest.raises(Refused, match="is in .'fr', 'ja'., and pairs"):
        read(tokenizer, tmp_path, pairs, str(tmp_path / "words.tsv"))
