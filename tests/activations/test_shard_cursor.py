import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisae.activations.shard_cursor import ShardCursor, check_split
from bisae.runtime.errors import Refused
from tests.activations.fake_ranks import BORDERS, covering
from tests.activations.fake_source import SIZES, FakeSource, silent

ROWS = sum(SIZES)
RANGES = st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)).map(lambda pair: (pair[0], min(sum(pair), ROWS)))


@given(ranges=st.lists(RANGES, max_size=6))
def test_any_ranges_in_any_order_are_covered_by_just_their_shards(ranges: list[tuple[int, int]]) -> None:
    walk, source = ShardCursor(FakeSource(), ROWS), FakeSource()
    for start, stop in ranges:
        found = walk.covering(start, stop)
        assert [shard.number for shard in found] == covering(start, stop)
        for shard in found:
            assert (shard.first, shard.after) == (BORDERS[shard.number], BORDERS[shard.number + 1])
            tokens = source.tokens(shard.number)
            assert tokens is not None and shard.tokens.token_ids.tolist() == tokens.token_ids.tolist()


@given(cuts=st.lists(st.integers(1, ROWS - 1), unique=True, max_size=8).map(sorted))
def test_going_on_asks_for_each_shard_once_and_holds_those_of_the_range_only(cuts: list[int]) -> None:
    source = FakeSource()
    walk = ShardCursor(source, ROWS)
    for start, stop in zip([0, *cuts], [*cuts, ROWS], strict=True):
        walk.covering(start, stop)
        assert source.held == set(covering(start, stop))
    assert source.asked == list(range(len(SIZES)))


def test_a_later_start_holds_nothing_of_what_lies_before() -> None:
    source = FakeSource()
    ShardCursor(source, ROWS).covering(125, 130)
    assert source.held == {4}


@pytest.mark.parametrize("start", [0, 190, 200])
def test_rows_behind_the_end_of_the_corpus_are_refused_with_what_there_is(start: int) -> None:
    walk = ShardCursor(FakeSource(), asked=999)
    with pytest.raises(Refused, match=r"^tokens=999: the corpus split holds only 200 tokens"):
        walk.covering(start, 201)
    assert [shard.number for shard in walk.covering(40, 41)] == [1]


@pytest.mark.parametrize("tokens", [0, 201])
def test_a_split_that_is_too_short_is_refused_by_field_without_an_lm(tokens: int) -> None:
    source = FakeSource()
    with pytest.raises(Refused) as refused:
        check_split(source, tokens, "validation_tokens", silent)
    assert refused.value.field == "validation_tokens"
    assert source.passes == []


@pytest.mark.parametrize(
    ("tokens", "asked", "largest"), [(40, [0], 40), (41, [0, 1], 40), (200, [0, 1, 2, 3, 4, 5], 50)]
)
def test_a_split_that_is_long_enough_is_read_no_further_and_not_kept(
    tokens: int, asked: list[int], largest: int
) -> None:
    source = FakeSource()
    assert check_split(source, tokens, "tokens", silent) == (tokens, largest)
    assert source.asked == asked
    assert source.held == set()
