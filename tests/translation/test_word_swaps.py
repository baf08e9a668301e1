from contextlib import suppress
from typing import Any

import pytest

from bisae.runtime.errors import Refused
from bisae.translation.prompts import Prompt, task_ids
from bisae.translation.tasks import Task, TranslationExample
from bisae.translation.word_swaps import SwapPrompt, matched, swap_prompts
from bisae.translation.words import Vocabulary, Word, as_in_text

PAIRS = {"dog": "犬", "cat": "猫", "book": "本", "car": "車"}


@pytest.fixture(scope="module")
def tokenizer(final: Any) -> Any:
    return final.load_tokenizer()


def word(text: str, translation: str, sentences: int, shared: bool = False, **ids: tuple[int, ...]) -> Word:
    number = sum(map(ord, text))
    made = Word((number,), (number + 1,), text, translation, sentences, shared)
    return made._replace(**ids)  # type: ignore[arg-type]


def words_of(tokenizer: Any) -> list[Word]:
    parts = [(as_in_text(one, tokenizer), as_in_text(other, tokenizer), one, other) for one, other in PAIRS.items()]
    return [Word(*part, 10 - number, False) for number, part in enumerate(parts)]


def asked(tokenizer: Any, *examples: tuple[str, str], most: int = 9, sentences: int = 9) -> list[SwapPrompt]:
    rows = tuple(TranslationExample(*row) for row in examples)
    task = task_ids(Task("t", "en", "ja", "", (), rows, 5), Prompt("pairs", "\n"), tokenizer, None)
    return swap_prompts([task], words_of(tokenizer), Vocabulary(tokenizer), most, sentences, 9.0)


SENTENCES = [
    ("I have a dog.", "私は「犬」がいます。"),
    ("A cat ran.", "「猫」が走った。"),
    ("My book is old.", "「本」は古い。"),
    ("The car is red.", "「車」は赤い。"),
]


def test_a_prompt_ends_before_the_words_translation_and_the_other_word_stands_at_its_place(tokenizer: Any) -> None:
    found = asked(tokenizer, *SENTENCES)
    assert {(one.pair, one.word.text, one.other.text) for one in found} == {
        (0, "dog", "cat"),
        (0, "cat", "dog"),
        (1, "book", "car"),
        (1, "car", "book"),
    }
    for one in found:
        source, reference = next(pair for pair in SENTENCES if one.word.text in pair[0])
        before = reference.partition(one.word.translation)[0]
        assert tokenizer.decode(one.ids[1:]) == f"{source}\n{before}" and one.ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(one.texts[1][1:]) == f"{source}\n{before}{one.other.translation}"
        swapped = [*one.ids[: one.place], *one.swap.other, *one.ids[one.place + len(one.swap.other) :]]
        assert tokenizer.decode(swapped[1:]) == f"{source.replace(one.word.text, one.other.text)}\n{before}"


@pytest.mark.parametrize(
    "example",
    [
        ("The dog saw a dog.", "「犬」が「犬」を見た。"),  # twice
        ("The dog saw a cat.", "「犬」は「猫」を見た。"),  # the other word too
        ("I have a dog.", "私は「猫」がいます。"),  # not its translation
        ("My dogma is old.", "「犬」は古い。"),  # no whole word
    ],
)
def test_examples_that_do_not_say_which_word_is_meant_are_left_out(tokenizer: Any, example: tuple[str, str]) -> None:
    rows = [row for row in SENTENCES if "dog" not in row[0]]
    rows += SENTENCES[2:]
    found: list[SwapPrompt] = []
    with suppress(Refused):  # where book and car make the only pair
        found = asked(tokenizer, *rows, example)
    assert "dog" not in {one.word.text for one in found}
    assert "dog" in {one.word.text for one in asked(tokenizer, *rows, SENTENCES[0])}


def test_a_word_of_a_shot_is_not_taken_for_one_of_the_sentence(tokenizer: Any) -> None:
    rows = tuple(TranslationExample(*row) for row in [("It is old.", "「犬」は古い。"), *SENTENCES[1:]])
    shot = TranslationExample("A dog ran.", "それは走った。")
    ids = task_ids(Task("t", "en", "ja", "", (shot,), rows, 5), Prompt("pairs", "\n"), tokenizer, None)
    with pytest.raises(Refused, match="4 words from en to ja make 1 pairs in 4 examples"):  # cat and book
        swap_prompts([ids], words_of(tokenizer), Vocabulary(tokenizer), 9, 9, 9.0)


def test_of_two_words_of_a_sentence_with_the_same_translation_one_gets_the_prompt(tokenizer: Any) -> None:
    pairs = {"dog": "犬", "cat": "猫", "man": "犬", "book": "本"}  # dog and cat, man and book
    words = [
        Word(as_in_text(one, tokenizer), as_in_text(other, tokenizer), one, other, 10 - number, False)
        for number, (one, other) in enumerate(pairs.items())
    ]
    rows = [("The dog saw a man.", "「犬」を見た。"), *SENTENCES[:3]]
    task = Task("t", "en", "ja", "", (), tuple(TranslationExample(*row) for row in rows), 5)
    ids = task_ids(task, Prompt("pairs", "\n"), tokenizer, None)
    found = swap_prompts([ids], words, Vocabulary(tokenizer), 9, 9, 9.0)
    assert [one.word.text for one in found] == ["dog", "dog", "cat", "book"]


def test_few_pairs_are_refused_and_many_are_cut(tokenizer: Any) -> None:
    with pytest.raises(Refused, match="4 words from en to ja make 1 pairs in 2 examples"):
        asked(tokenizer, *SENTENCES[:2])
    assert len(asked(tokenizer, *SENTENCES, *SENTENCES, sentences=1)) == 4
    assert len(asked(tokenizer, *SENTENCES, *SENTENCES)) == 8


def test_words_are_matched_in_frequency_and_lengths_and_shared_ones_among_themselves() -> None:
    words = [
        word("a", "A", 100),
        word("b", "B", 40),
        word("c", "C", 39, ids=(1, 2)),
        word("d", "D", 30, shared=True),
        word("e", "E", 30),
        word("f", "F", 29, ids=(3, 4)),
        word("g", "G", 28, shared=True),
        word("h", "H", 20, translated_ids=(7, 8)),
    ]
    assert [(one.text, other.text) for one, other in matched(words, 2.0)] == [("b", "e"), ("c", "f"), ("d", "g")]
    assert ("a", "b") in [(one.text, other.text) for one, other in matched(words, 2.5)]
    same = [word("a", "A", 9), word("b", "A", 8)]
    assert matched([same[0], same[1]._replace(translated_ids=same[0].translated_ids)], 2.0) == []
