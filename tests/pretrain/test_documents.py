import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bisae.pretrain.documents import Group, Mix, epoch_documents, token_rows

BOS, NEWLINE, VOCABULARY = 1, 2, 100
FIRST, SECOND = range(10, 40), range(50, 80)  # tokens of each language; of ten of each the translation is known
LEXICON = np.full((2, VOCABULARY), -1, np.int32)
LEXICON[0, 10:20] = range(50, 60)
LEXICON[1, 50:60] = range(10, 20)

PAIR = Mix(pair=1.0, code_switched=0.0, swap=0.0)
PLAIN = Mix(pair=0.0, code_switched=0.0, swap=0.0)
MIXED = Mix(pair=0.3, code_switched=0.3, swap=0.5)

Ids = npt.NDArray[np.int32]


def make_groups(count: int, sentences: int = 6) -> list[Group]:
    """Sentences of one to five tokens, each side within its language's."""
    random = np.random.default_rng(0)

    def side(language: range) -> tuple[Ids, ...]:
        tokens = np.array(language, np.int32)
        return tuple(random.choice(tokens, random.integers(1, 6)) for _ in range(sentences))

    return [Group((side(FIRST), side(SECOND))) for _ in range(count)]


def lines(document: Ids) -> list[list[int]]:
    assert document[0] == BOS and BOS not in document[1:]
    made: list[list[int]] = [[]]
    for token in document[1:].tolist():
        if token == NEWLINE:
            made.append([])
        else:
            made[-1].append(token)
    return made


def documents(groups: list[Group], mix: Mix, seed: int = 0, epoch: int = 0) -> list[Ids]:
    return epoch_documents(groups, LEXICON, mix, BOS, NEWLINE, seed, epoch)


def sentences_of(group: Group) -> list[list[list[int]]]:
    return [[sentence.tolist() for sentence in side] for side in group.sides]


def languages_in(document: Ids) -> set[int]:
    return {
        language for language, tokens in enumerate((FIRST, SECOND)) for token in document.tolist() if token in tokens
    }


def test_pair_documents_tell_sentence_and_translation_in_turn() -> None:
    groups = make_groups(40, sentences=3)
    expected = []
    for group in groups:
        one, two = sentences_of(group)
        turns = [sentence for pair in zip(one, two, strict=True) for sentence in pair]
        swapped = [sentence for pair in zip(two, one, strict=True) for sentence in pair]
        expected.append((turns, swapped))
    found = [lines(document) for document in documents(groups, PAIR)]
    assert len(found) == len(groups)
    first = [sum(order[which] in found for order in expected) for which in (0, 1)]
    assert sum(first) == len(groups) and min(first) > 8  # either language first, about as often


def test_plain_documents_are_the_sides_of_the_groups() -> None:
    groups = make_groups(30)
    found = [lines(document) for document in documents(groups, PLAIN)]
    assert sorted(found) == sorted(side for group in groups for side in sentences_of(group))


def test_plain_documents_never_hold_both_languages() -> None:
    for epoch in range(3):
        assert {len(languages_in(document)) for document in documents(make_groups(30), PLAIN, epoch=epoch)} == {1}


def test_code_switching_everything_swaps_exactly_the_known_words() -> None:
    groups = make_groups(30)

    def translated(language: int, side: list[list[int]]) -> list[list[int]]:
        lexicon = LEXICON[language]
        return [[int(lexicon[token]) if lexicon[token] >= 0 else token for token in sentence] for sentence in side]

    expected = [translated(language, side) for group in groups for language, side in enumerate(sentences_of(group))]
    found = [lines(document) for document in documents(groups, Mix(pair=0.0, code_switched=1.0, swap=1.0))]
    assert sorted(found) == sorted(expected)
    assert any(len(languages_in(document)) == 2 for document in documents(groups, Mix(0.0, 1.0, 1.0)))


def test_code_switching_nothing_is_plain() -> None:
    groups = make_groups(30)
    unswitched = documents(groups, Mix(pair=0.0, code_switched=1.0, swap=0.0))
    assert all(np.array_equal(a, b) for a, b in zip(unswitched, documents(groups, PLAIN), strict=True))


def test_words_are_swapped_as_often_as_asked() -> None:
    groups = [Group(((np.full(200, 10, np.int32),), (np.full(200, 50, np.int32),)))] * 20
    for document in documents(groups, Mix(pair=0.0, code_switched=1.0, swap=0.3)):
        ids = document[1:]
        own, other = (10, 50) if (ids == 10).sum() > (ids == 50).sum() else (50, 10)
        assert set(ids.tolist()) == {own, other}
        assert abs((ids == other).mean() - 0.3) < 0.16  # five standard deviations


def test_the_kinds_of_documents_have_their_shares() -> None:
    groups = make_groups(1500, sentences=2)
    made = documents(groups, Mix(pair=0.2, code_switched=0.5, swap=0.0))
    pairs = sum(len(lines(document)) == 4 for document in made)
    assert abs(pairs / len(groups) - 0.2) < 0.05
    assert len(made) == pairs + 2 * (len(groups) - pairs)
    untouched = sum(len(languages_in(document)) == 1 for document in documents(groups, Mix(0.2, 0.5, 1.0)))
    known = 2 * 2 * 0.3 * len(groups)  # at least the plain ones, two a group; some switched ones know no word
    assert known / 2 * 0.85 < untouched < len(made) - pairs


def sided(document: Ids) -> tuple[list[list[int]], list[list[int]]]:
    """The sentences of a pair document by language; it must change the language with every line."""
    sides: tuple[list[list[int]], list[list[int]]] = ([], [])
    of = [0 if line[0] in FIRST else 1 for line in lines(document)]
    assert all(before != after for before, after in zip(of, of[1:], strict=False))
    for language, line in zip(of, lines(document), strict=True):
        sides[language].append(line)
    return sides


def test_unpaired_documents_hold_the_same_sentences_in_the_same_order_without_one_translation() -> None:
    groups = make_groups(60, sentences=3)
    mix, control = Mix(0.4, 0.0, 0.0, plain=(1.0, 0.5)), Mix(0.4, 0.0, 0.0, plain=(1.0, 0.5), unpaired=True)
    translation = {tuple(map(tuple, one)): two for one, two in map(sentences_of, groups)}
    pairs = 0
    for epoch in range(3):
        main, unpaired = documents(groups, mix, epoch=epoch), documents(groups, control, epoch=epoch)
        assert len(main) == len(unpaired)
        seconds: tuple[list[Any], list[Any]] = ([], [])
        for one, other in zip(main, unpaired, strict=True):
            if languages_in(one) == {0, 1}:
                pairs += 1
                (first, second), (same, wrong) = sided(one), sided(other)
                assert first == same and second == translation[tuple(map(tuple, first))] != wrong
                assert (one[1] in FIRST) == (other[1] in FIRST)  # the same language first
                seconds[0].append(second)
                seconds[1].append(wrong)
            else:
                assert np.array_equal(one, other)
        assert sorted(seconds[0]) == sorted(seconds[1])
    assert pairs > 40


def test_the_second_sides_of_unpaired_documents_are_drawn_anew_in_each_epoch() -> None:
    groups = make_groups(30, sentences=2)
    control = Mix(1.0, 0.0, 0.0, unpaired=True)
    first, second = ({str(sided(d)) for d in documents(groups, control, epoch=epoch)} for epoch in (0, 1))
    assert len(first & second) < len(groups) / 3


def test_unpaired_documents_of_unequal_groups_keep_every_sentence() -> None:
    groups = [*make_groups(5, sentences=6), *make_groups(1, sentences=2)]
    found = documents(groups, Mix(1.0, 0.0, 0.0, unpaired=True))
    assert sorted(line for document in found for line in lines(document)) == sorted(
        sentence for group in groups for side in sentences_of(group) for sentence in side
    )


def test_one_pair_document_alone_cannot_be_unpaired() -> None:
    with pytest.raises(ValueError, match="unpaired=True: there is one pair document only"):
        documents(make_groups(1), Mix(1.0, 0.0, 0.0, unpaired=True))


def test_a_language_is_as_rare_in_plain_documents_as_asked() -> None:
    groups = make_groups(1200, sentences=1)
    made = [languages_in(document) for document in documents(groups, Mix(0.0, 0.0, 0.0, plain=(1.0, 0.25)))]
    assert made.count({0}) == len(groups)
    assert abs(made.count({1}) / len(groups) - 0.25) < 0.07  # five standard deviations


def test_kinds_that_are_kept_are_those_of_every_epoch_and_the_order_of_languages_is_not() -> None:
    groups = make_groups(80, sentences=2)
    mix = Mix(0.5, 0.0, 0.0, plain=(1.0, 0.5), keep_kinds=True)
    made = [documents(groups, mix, epoch=epoch) for epoch in range(6)]
    contents = [sorted(sorted(lines(document)) for document in epoch) for epoch in made]
    assert all(content == contents[0] for content in contents)
    pairs = [[lines(document) for document in epoch if len(languages_in(document)) == 2] for epoch in made]
    orders = {str(sorted(document)): set[str]() for document in pairs[0]}
    for document in (document for epoch in pairs for document in epoch):
        orders[str(sorted(document))].add(str(document))
    assert 20 < len(orders) < 60
    assert sum(len(order) == 2 for order in orders.values()) > 0.8 * len(orders)  # all but one in 32, of six draws
    other = documents(groups, mix, seed=1)
    assert sorted(sorted(lines(document)) for document in other) != contents[0]


def test_documents_depend_on_seed_and_epoch_alone() -> None:
    groups = make_groups(20)

    def flat(seed: int, epoch: int) -> list[int]:
        np.random.seed(seed * 7 + epoch)
        return np.concatenate(documents(groups, MIXED, seed, epoch)).tolist()

    assert flat(3, 5) == flat(3, 5)
    assert flat(3, 5) != flat(3, 6)
    assert flat(3, 5) != flat(4, 5)


def test_documents_of_the_shipped_recipes_are_those_they_were_made_with() -> None:
    made = b"".join(document.tobytes() for document in documents(make_groups(40), MIXED))
    assert hashlib.sha256(made).hexdigest() == "1d636a58dd0c92531a72d6179ca1ed588ddaeea057925ab59fe45a2f32a23d91"


def test_one_groups_document_does_not_depend_on_the_groups_after_it() -> None:
    groups = make_groups(20)
    few = [document.tolist() for document in documents(groups[:8], MIXED)]
    many = [document.tolist() for document in documents(groups, MIXED)]
    assert all(document in many for document in few)


@pytest.mark.parametrize(("rows", "context"), [(1, 5), (7, 16), (40, 33)])
def test_rows_are_the_documents_of_all_epochs_cut_end_to_end(rows: int, context: int) -> None:
    groups = make_groups(5)
    stream = np.concatenate([d for epoch in range(8) for d in documents(groups, MIXED, seed=9, epoch=epoch)])
    made, epochs = token_rows(groups, LEXICON, MIXED, BOS, NEWLINE, 9, rows, context)
    assert made.shape == (rows, context + 1)
    assert len(stream) >= made.size
    assert np.array_equal(made.ravel(), stream[: made.size])
    ends = np.cumsum([sum(map(len, documents(groups, MIXED, seed=9, epoch=epoch))) for epoch in range(8)])
    assert epochs == pytest.approx(np.interp(made.size, [0, *ends], range(9)))


def test_more_rows_start_with_the_same_rows() -> None:
    groups = make_groups(5)
    few, many = (token_rows(groups, LEXICON, MIXED, BOS, NEWLINE, 0, rows, 16)[0] for rows in (6, 60))
    assert np.array_equal(few, many[:6])


@pytest.mark.parametrize(
    ("pair", "code_switched", "swap"),
    [(-0.1, 0.5, 0.5), (0.5, -0.1, 0.5), (0.6, 0.5, 0.5), (1.1, 0.0, 0.0), (0.3, 0.3, -0.1), (0.3, 0.3, 1.1)],
)
def test_shares_that_make_no_mix_are_refused(pair: float, code_switched: float, swap: float) -> None:
    with pytest.raises(ValueError, match="shares of documents must be within 0..1"):
        Mix(pair, code_switched, swap)


def test_a_mix_that_leaves_no_document_is_refused() -> None:
    with pytest.raises(ValueError, match="^mix=.*leaves no document"):
        token_rows(make_groups(3), LEXICON, Mix(0.0, 0.0, 0.0, plain=(0.0, 0.0)), BOS, NEWLINE, 0, 4, 16)


@pytest.mark.parametrize("plain", [(1.0,), (1.0, 0.5, 1.0), (1.0, 1.1), (-0.1, 1.0)])
def test_shares_of_plain_documents_are_one_for_each_language(plain: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="^plain=.*for each of the two languages"):
        Mix(0.3, 0.3, 0.5, plain=plain)


@pytest.mark.parametrize(("pair", "code_switched"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_shares_at_their_bounds_are_fine(pair: float, code_switched: float) -> None:
    assert Mix(pair, code_switched, 1.0).pair == pair
