import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bisae.activations.ahead import ahead
from bisae.activations.feed import ActivationBatch, Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.streaming import StreamingActivations
from tests.activations.fake_source import FakeSource

ORDER = ReadingOrder(seed=3, tokens=190, batch=12, block=7, pool_batches=2, window_pools=2)
CPU = torch.device("cpu")


def batches(fails_at: int | None = None) -> Iterator[ActivationBatch]:
    activations = StreamingActivations(FakeSource(fails_at=fails_at), [2], 190, ahead=True)
    feed = Feed(activations, [2], ORDER, epochs=1)
    for step in range(ORDER.steps_per_epoch):
        yield feed.batch(0, step)
    activations.close(finished=True)


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    for here, there in zip(batches(), ahead(batches(), CPU), strict=True):
        assert here.rows.tolist() == there.rows.tolist() and torch.equal(here.activations[2], there.activations[2])


def test_the_next_batch_is_made_while_one_is_used_and_no_other() -> None:
    made = []

    def noted() -> Iterator[ActivationBatch]:
        for batch in batches():
            made.append(threading.current_thread())
            yield batch

    ready = ahead(noted(), CPU)
    for number in range(1, 4):
        next(ready)
        deadline = time.monotonic() + 10
        while len(made) <= number:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.02)
        assert len(made) == number + 1
    ready.close()  # type: ignore[attr-defined]
    assert {thread.name for thread in made} == {"batch-ahead_0"} and not made[0].is_alive()


def test_an_error_reaches_the_reader_of_its_batch() -> None:
    ready = ahead(batches(fails_at=2), CPU)
    assert next(ready).rows.tolist() == ORDER.rows(0, 0).tolist()
    with pytest.raises(RuntimeError, match="no memory for shard 2"):
        list(ready)
