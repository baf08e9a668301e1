import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.activations.order import ReadingOrder
from bisae.runtime.errors import Refused


@st.composite
def orders(draw: st.DrawFn) -> ReadingOrder:
    tokens = draw(st.integers(1, 400))
    return ReadingOrder(
        seed=draw(st.integers(0, 2**70)),
        tokens=tokens,
        batch=draw(st.integers(1, tokens)),
        block=draw(st.integers(1, 500)),
        pool_batches=draw(st.integers(1, 12)),
        window_pools=draw(st.integers(1, 5)),
    )


def epoch_rows(order: ReadingOrder, epoch: int) -> np.ndarray:
    return np.concatenate([order.rows(epoch, step) for step in range(order.steps_per_epoch)])


@given(order=orders(), epoch=st.integers(0, 3))
def test_every_row_comes_at_most_once_an_epoch_and_only_a_remainder_is_left_out(
    order: ReadingOrder, epoch: int
) -> None:
    rows = epoch_rows(order, epoch)
    assert len(rows) == len(np.unique(rows)) == order.tokens - order.tokens % order.batch
    assert rows.min() >= 0 and rows.max() < order.tokens


@given(
    batch=st.integers(1, 20),
    steps=st.integers(1, 20),
    block=st.integers(1, 50),
    pool=st.integers(1, 8),
    window=st.integers(1, 4),
)
def test_every_row_comes_exactly_once_where_batches_divide_the_tokens(
    batch: int, steps: int, block: int, pool: int, window: int
) -> None:
    rows = epoch_rows(ReadingOrder(0, batch * steps, batch, block, pool, window), epoch=1)
    assert np.array_equal(np.sort(rows), np.arange(batch * steps))


@settings(max_examples=30)
@given(order=orders(), random=st.randoms(use_true_random=False))
def test_a_step_has_the_same_rows_whatever_was_asked_before(order: ReadingOrder, random: object) -> None:
    steps = [(epoch, step) for epoch in range(2) for step in range(min(order.steps_per_epoch, 20))]
    forward = {step: order.rows(*step) for step in steps}
    random.shuffle(steps)  # type: ignore[attr-defined]
    for step in steps:
        assert np.array_equal(order.rows(*step), forward[step])


@given(order=orders(), world=st.integers(1, 8), epoch=st.integers(0, 2))
def test_the_ranks_parts_make_up_the_global_batch(order: ReadingOrder, world: int, epoch: int) -> None:
    step = order.steps_per_epoch - 1
    if order.batch % world:
        with pytest.raises(Refused, match="^batch="):
            order.rank_rows(epoch, step, 0, world)
        return
    parts = [order.rank_rows(epoch, step, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {order.batch // world}
    assert np.array_equal(np.concatenate(parts), order.rows(epoch, step))


@settings(max_examples=30)
@given(order=orders())
def test_a_pool_reads_whole_blocks_but_for_its_two_ends(order: ReadingOrder) -> None:
    if order.steps_per_epoch <= order.pool_batches:
        return
    rows = np.sort(order.pool_rows(epoch=0, pool=0).reshape(-1))
    _, sizes = np.unique(rows // order.block, return_counts=True)
    whole = min(order.block, order.tokens)
    # The last pooled block may be cut by the pool's end, and the corpus' last block may be short by itself.
    assert (sizes < whole).sum() <= 2


def test_seeds_and_epochs_give_different_orders() -> None:
    orders = [
        ReadingOrder(seed, tokens=1000, batch=10, block=8, pool_batches=4, window_pools=100)
        for seed in (0, 1, 2**32, 2**32 + 1)
    ]
    permutations = [epoch_rows(order, epoch) for order in orders for epoch in (0, 1, 2)]
    for index, permutation in enumerate(permutations):
        # Two unrelated permutations agree in about one place.
        assert all((permutation == other).sum() < 10 for other in permutations[:index])


def test_pools_of_an_epoch_are_permuted_differently() -> None:
    order = ReadingOrder(
        seed=0, tokens=200, batch=10, block=200, pool_batches=10, window_pools=100
    )  # one block: pools lie in order
    first, second = order.pool_rows(0, 0), order.pool_rows(0, 1) - 100
    assert np.array_equal(np.sort(first, axis=None), np.sort(second, axis=None))
    assert (first == second).sum() < 10


@pytest.mark.parametrize("block", [16, 5000])
def test_the_rows_left_over_differ_by_epoch(block: int) -> None:
    order = ReadingOrder(seed=0, tokens=1000, batch=300, block=block, pool_batches=2, window_pools=100)
    left_over = [frozenset(range(1000)) - frozenset(epoch_rows(order, epoch).tolist()) for epoch in range(4)]
    assert {len(rows) for rows in left_over} == {100}
    assert len(set(left_over)) == 4


def test_what_a_caller_does_to_its_rows_stays_with_the_caller() -> None:
    order = ReadingOrder(seed=0, tokens=100, batch=10, block=8, pool_batches=4, window_pools=100)
    expected = order.rows(0, 0).copy()
    order.rows(0, 0)[:] = -1
    assert np.array_equal(order.rows(0, 0), expected)
    with pytest.raises(ValueError, match="read-only"):
        order.pool_rows(0, 0)[:] = -1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"batch": 101}, "batch"),
        ({"batch": 0}, "batch"),
        ({"block": 0}, "block"),
        ({"pool_batches": 0}, "pool_batches"),
        ({"window_pools": 0}, "window_pools"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_orders_are_refused_by_field(change: dict[str, int], key: str) -> None:
    values = {"seed": 0, "tokens": 100, "batch": 10, "block": 8, "pool_batches": 4, "window_pools": 1} | change
    with pytest.raises(Refused, match=f"^{key}="):
        ReadingOrder(**values)


def test_steps_and_ranks_out_of_range_are_refused() -> None:
    order = ReadingOrder(seed=0, tokens=105, batch=10, block=8, pool_batches=4, window_pools=100)
    for step in (-1, 10):
        with pytest.raises(IndexError, match="of an epoch of 10 steps"):
            order.rows(0, step)
    with pytest.raises(IndexError, match="rank 2 of 2"):
        order.rank_rows(0, 0, rank=2, world=2)


# Mixing, measured: 2^18 tokens in documents of 64, languages alternating every 8192, batches of 512.
TOKENS, BATCH = 2**18, 512
DOCUMENT = np.arange(TOKENS) // 64
LANGUAGE = np.arange(TOKENS) // 8192 % 2


def mixing(batches: np.ndarray) -> tuple[float, float]:
    """Mean number of documents in a batch; standard deviation of the second language's share over batches."""
    documents = float(np.mean([len(np.unique(DOCUMENT[rows])) for rows in batches]))
    return documents, float(LANGUAGE[batches].mean(axis=1).std())


def pooled(block: int, pool_batches: int) -> np.ndarray:
    return epoch_rows(ReadingOrder(0, TOKENS, BATCH, block, pool_batches, 10**6), epoch=0).reshape(-1, BATCH)


@pytest.mark.parametrize(("block", "pool_batches"), [(16, 64), (64, 256), (2, 16), (1, 16)])
def test_a_pool_of_four_blocks_a_row_mixes_nearly_like_a_full_shuffle(block: int, pool_batches: int) -> None:
    # Measured: documents 481 for the full shuffle, 438 for (16, 64), 454 for (64, 256), 468 for (2, 16); share
    # 0.022, 0.025, 0.023, 0.023. (1, 16), which experiment=paper has, is a full shuffle of each window.
    full_documents, full_share = mixing(np.random.default_rng(0).permutation(TOKENS).reshape(-1, BATCH))
    documents, share = mixing(pooled(block, pool_batches))
    assert documents > 0.88 * full_documents
    assert share < 1.25 * full_share


def test_the_studys_batches_hold_as_many_documents_as_with_four_times_the_pool() -> None:
    # Two windows and more of the study's size. Measured: 25 080 and 24 670 documents in a batch of 32 768 tokens, and
    # 25 280 with block=2 pool_batches=16 window_pools=8, which takes a seventh more RAM.
    def documents(block: int, pool_batches: int, window_pools: int) -> float:
        order = ReadingOrder(0, 2**23, 32768, block, pool_batches, window_pools)
        return float(np.mean([len(np.unique(order.rows(0, step) // 64)) for step in (0, 70, 200)]))

    assert documents(1, 16, 7) > documents(16, 64, 2)


def test_blocks_without_a_pool_mix_clearly_worse() -> None:
    # Measured: 8 documents in a batch, share 0.17.
    _, full_share = mixing(np.random.default_rng(0).permutation(TOKENS).reshape(-1, BATCH))
    documents, share = mixing(pooled(block=64, pool_batches=1))
    assert documents < 20
    assert share > 5 * full_share


@given(order=orders(), epoch=st.integers(0, 2))
def test_the_steps_of_a_window_read_its_rows_only_and_windows_follow_each_other(
    order: ReadingOrder, epoch: int
) -> None:
    size = order.window_pools * order.pool_batches
    stops = [0]
    for number in range(order.windows):
        start, stop = order.window(number)
        assert start == stops[-1]
        stops.append(stop)
        steps = range(number * size, min((number + 1) * size, order.steps_per_epoch))
        rows = np.concatenate([order.rows(epoch, step) for step in steps])
        assert start <= rows.min() and rows.max() < stop
        pools = [order.pool_rows(epoch, pool).reshape(-1) for pool in order.pools(number)]
        assert np.array_equal(np.concatenate(pools), rows)
    assert stops[-1] == order.tokens
