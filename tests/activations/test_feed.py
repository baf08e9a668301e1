import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import ActivationBatch, Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.reader import CachedActivations
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import Part
from tests.activations.fake_source import FakeSource

ORDER = ReadingOrder(seed=3, tokens=190, batch=12, block=7, pool_batches=4, window_pools=2)  # 15 steps, 4 pools


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> CachedActivations:
    cache = ActivationCache(tmp_path_factory.mktemp("cache"), disk_gib=1, evict=False, verify=True)
    return cache.prepare(FakeSource(), [2, 4], tokens=190)


def is_direct_gather(batch: ActivationBatch, cached: CachedActivations, rows: np.ndarray) -> bool:
    same_rows = np.array_equal(batch.rows.numpy(), rows)
    same_language = np.array_equal(batch.language.numpy(), cached.language[rows])
    same_values = all(torch.equal(values, cached.gather(layer, rows)) for layer, values in batch.activations.items())
    return same_rows and same_language and same_values


def test_every_batch_of_two_epochs_is_a_direct_gather_of_its_rows(cached: CachedActivations) -> None:
    feed = Feed(cached, [2, 4], ORDER, epochs=2)
    for epoch in range(2):
        for step in range(ORDER.steps_per_epoch):
            batch = feed.batch(epoch, step)
            assert list(batch.activations) == [2, 4]
            assert is_direct_gather(batch, cached, ORDER.rows(epoch, step))


@settings(max_examples=30)
@given(jumps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 14), st.sampled_from([1, 2, 3])), max_size=8))
def test_jumping_anywhere_gives_the_batch_of_that_step(
    cached: CachedActivations, jumps: list[tuple[int, int, int]]
) -> None:
    feeds = {(r, world): Feed(cached, [4], ORDER, 2, Part(r, world)) for world in (1, 2, 3) for r in range(world)}
    for epoch, step, world in jumps:
        for rank in range(world):
            batch = feeds[rank, world].batch(epoch, step)
            assert is_direct_gather(batch, cached, ORDER.rank_rows(epoch, step, rank, world))


def test_layers_do_not_influence_each_other(cached: CachedActivations) -> None:
    alone, together = Feed(cached, [4], ORDER, epochs=2).batch(0, 5), Feed(cached, [2, 4], ORDER, epochs=2).batch(0, 5)
    assert torch.equal(alone.activations[4], together.activations[4])


def test_what_a_caller_does_to_its_batch_stays_with_the_caller(cached: CachedActivations) -> None:
    feed = Feed(cached, [2], ORDER, epochs=2)
    first = feed.batch(0, 0)
    for tensor in (first.activations[2], first.language, first.rows):
        tensor.zero_()
    assert is_direct_gather(feed.batch(0, 0), cached, ORDER.rows(0, 0))


def test_a_pool_is_read_once(cached: CachedActivations, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    gather = cached.gather_ascending

    def counted(layer: int, rows: np.ndarray, out: torch.Tensor) -> None:
        assert (np.diff(rows) > 0).all()  # in the order of the disk
        reads.append(layer)
        gather(layer, rows, out)

    monkeypatch.setattr(cached, "gather_ascending", counted)
    feed = Feed(cached, [2, 4], ORDER, epochs=2)
    for step in range(ORDER.steps_per_epoch):
        feed.batch(0, step)
    assert reads == [2, 4] * 4


def test_an_order_longer_than_the_cache_is_refused(cached: CachedActivations) -> None:
    with pytest.raises(Refused, match="^tokens=201: there are only 200 tokens"):
        Feed(cached, [2], ReadingOrder(seed=0, tokens=201, batch=10, block=8, pool_batches=4, window_pools=1), epochs=1)
