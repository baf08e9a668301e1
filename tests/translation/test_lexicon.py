import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.translation.lexicon import dice_lexicon

VOCABULARY = 40
ALL = np.ones(VOCABULARY, np.bool_)


def planted(pairs: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Token t < 10 of side 0 is always said as t + 10 on side 1; 20 and 21 stand in every sentence."""
    random = np.random.default_rng(seed)
    left = [random.integers(0, 10, 3).tolist() for _ in range(pairs)]
    return [([20, *words, 21], [21, *(word + 10 for word in words[::-1])]) for words in left]


@pytest.mark.parametrize("seed", range(3))
def test_planted_translations_are_found_in_both_directions(seed: int) -> None:
    lexicon = dice_lexicon(planted(200, seed), VOCABULARY, ALL, together=8, dice=0.5)
    assert lexicon[0, :10].tolist() == list(range(10, 20))
    assert lexicon[1, 10:20].tolist() == list(range(10))
    assert (lexicon[0, 10:20] == -1).all() and (lexicon[1, :10] == -1).all()


def test_a_side_keeps_to_its_own_reading_of_a_token() -> None:
    # 5 means 6 when read on side 0; on side 1 it is the translation of 7.
    sides = [([5], [6])] * 10 + [([7], [5])] * 10
    lexicon = dice_lexicon(sides, VOCABULARY, ALL, together=8, dice=0.5)
    assert (lexicon[0, 5], lexicon[1, 5]) == (6, 7)


@pytest.mark.parametrize(("seen", "found"), [(7, -1), (8, 2)])
def test_too_few_pairs_together_make_no_translation(seen: int, found: int) -> None:
    assert dice_lexicon([([1], [2])] * seen, VOCABULARY, ALL, together=8, dice=0.1)[0, 1] == found


@pytest.mark.parametrize(("dice", "found"), [(0.49, 2), (0.5, -1), (0.51, -1)])
def test_the_score_must_be_above_the_bound(dice: float, found: int) -> None:
    # Ten pairs have both, ten only the left and ten only the right one: dice = 2 * 10 / (20 + 20).
    sides = [([1], [2])] * 10 + [([1], [3])] * 5 + [([1], [4])] * 5 + [([5], [2])] * 5 + [([6], [2])] * 5
    assert dice_lexicon(sides, VOCABULARY, ALL, together=8, dice=dice)[0, 1] == found


def test_a_token_twice_in_a_sentence_counts_once() -> None:
    assert dice_lexicon([([1, 1, 1], [2, 2])] * 4, VOCABULARY, ALL, together=5, dice=0.1)[0, 1] == -1


def test_the_best_partner_wins() -> None:
    sides = [([1], [2, 3])] * 8 + [([1], [3])] * 2 + [([9], [2])] * 6
    assert dice_lexicon(sides, VOCABULARY, ALL, together=5, dice=0.1)[0, 1] == 3


def test_tokens_without_a_word_of_the_other_side_are_no_error() -> None:
    assert (dice_lexicon([([1], []), ([], [2])], VOCABULARY, ALL, together=1, dice=0.0) == -1).all()


SENTENCES = st.lists(st.integers(0, 9), max_size=4)


@settings(deadline=None)
@given(
    st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=10, max_size=10),
    st.integers(1, 4),
    st.floats(0, 1),
)
def test_whatever_is_swapped_is_a_word_seen_often_enough_with_another_word(
    sides: list[tuple[list[int], list[int]]], words: list[bool], together: int, dice: float
) -> None:
    lexicon = dice_lexicon(sides, 10, np.array(words), together, dice)
    for language in (0, 1):
        for token, translation in enumerate(lexicon[language].tolist()):
            partners = [
                (2 * both / (ours + theirs), other)
                for other in range(10)
                for both in [sum(token in pair[language] and other in pair[1 - language] for pair in sides)]
                for ours in [sum(token in pair[language] for pair in sides)]
                for theirs in [sum(other in pair[1 - language] for pair in sides)]
                if words[token] and words[other] and other != token and both >= together
            ]
            best = max(partners, default=(0.0, -1))[0]
            if best <= dice:
                assert translation == -1
            else:
                assert (best, translation) in partners
