import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisae.activations.store import ShardRows

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def rows_of(sizes: list[int], first_row: int) -> tuple[ShardRows, torch.Tensor]:
    """Shards 3, 4, ... and all their values."""
    values = torch.arange(sum(sizes) * 2).view(-1, 2).bfloat16()
    borders = first_row + np.cumsum([0, *sizes])
    return ShardRows(3, borders, {1: values.split(sizes)}, d_model=2), values


@given(sizes=SIZES, first_row=st.integers(0, 50), data=st.data())
def test_rows_are_found_in_the_middle_of_the_token_stream(
    sizes: list[int], first_row: int, data: st.DataObject
) -> None:
    rows, values = rows_of(sizes, first_row)
    chosen = np.array(data.draw(st.lists(st.integers(first_row, first_row + sum(sizes) - 1))), dtype=np.int64)
    assert torch.equal(rows.gather(1, chosen), values[chosen - first_row])
    shard = np.repeat(np.arange(3, 3 + len(sizes)), sizes)
    assert rows.shards_of(chosen) == sorted(set(shard[chosen - first_row].tolist()))
    assert torch.equal(rows.read(1, first_row + 1, first_row + sum(sizes)), values[1:])


@pytest.mark.parametrize("wanted", [[4], [10], [5, 10], [0, 7]])
def test_rows_that_are_not_here_are_refused(wanted: list[int]) -> None:
    rows, _ = rows_of([2, 3], first_row=5)
    with pytest.raises(IndexError, match="of the rows 5 ... 9"):
        rows.gather(1, np.array(wanted))


def test_what_was_read_is_a_copy() -> None:
    rows, values = rows_of([2, 3], first_row=5)
    rows.read(1, 5, 10).zero_()
    assert torch.equal(rows.gather(1, np.arange(5, 10)), values)
    assert values.any()
