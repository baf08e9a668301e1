import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import HeldOutBatches
from bisae.activations.reader import CachedActivations
from bisae.activations.rolling import RollingActivations
from bisae.activations.store import Activations
from bisae.activations.streaming import StreamingActivations
from bisae.runtime.ranks import Part
from tests.activations.fake_ranks import in_ranks
from tests.activations.fake_source import FakeSource


class Watched:
    """Activations that note the windows asked for, and what is wanted of each."""

    in_ram = False

    def __init__(self, cached: CachedActivations) -> None:
        self.cached = cached
        self.name, self.d_model, self.tokens = cached.name, cached.d_model, cached.tokens
        self.asked: list[tuple[int, int, Any]] = []
        self.wanted: list[list[int]] = []

    def window(self, start: int, stop: int, wanted: object, following: Any) -> CachedActivations:
        assert callable(wanted)
        self.asked.append((start, stop, following and following[:2]))
        self.wanted.append(wanted().tolist())
        return self.cached

    def done(self, rows: object, passed: int) -> None: ...

    def close(self, finished: bool) -> None: ...


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> CachedActivations:
    cache = ActivationCache(tmp_path_factory.mktemp("cache"), disk_gib=1, evict=False, verify=True)
    return cache.prepare(FakeSource(), [2, 4], tokens=200)


@settings(max_examples=40)
@given(tokens=st.integers(1, 40), size=st.integers(1, 15), window=st.integers(1, 40), world=st.integers(1, 4))
def test_each_row_comes_once_over_all_ranks_which_ask_for_the_same_windows(
    cached: CachedActivations, tokens: int, size: int, window: int, world: int
) -> None:
    batches: dict[int, list[int]] = {}
    asked = []
    for rank in range(world):
        watched = Watched(cached)
        for number, batch in enumerate(HeldOutBatches(watched, [2], tokens, size, window, Part(rank, world))):
            batches[number * world + rank] = batch.rows.tolist()
        assert sum(watched.wanted, []) == sum((batches[n] for n in sorted(batches) if n % world == rank), [])
        asked.append(watched.asked)
    assert sum((batches[number] for number in sorted(batches)), []) == list(range(tokens))
    assert {len(rows) for rows in batches.values()} <= {size, tokens % size}
    assert all(windows == asked[0] for windows in asked)

    *begins, end = [start for start, _, _ in asked[0]] + [tokens]
    assert [stop for _, stop, _ in asked[0]] == [*begins[1:], end]
    assert [following for _, _, following in asked[0]] == [(start, stop) for start, stop, _ in asked[0][1:]] + [None]
    assert all(window <= stop - start < window + size for start, stop, _ in asked[0][:-1])


def test_the_lm_goes_on_to_the_next_window_while_one_is_scored_in_the_memory_of_rows_that_are_done() -> None:
    source = FakeSource()
    activations = StreamingActivations(source, [2], 190, ahead=True)
    batches = iter(HeldOutBatches(activations, [2], 190, 20, 100))
    for _ in range(5):  # the first window, of 100 rows in shards 0 to 2; rows 100 to 189 lie in 2 to 5
        next(batches)
    deadline = time.monotonic() + 10
    while len(source.passes) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert activations._stock.most <= 100 + 50 and len(list(batches)) == 5
    assert [shard for shard, _ in source.passes] == list(range(6)) and source.slips == []
    activations.close(finished=True)


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("kind", ["rolling", "streaming", "streaming ahead"])
def test_values_are_the_same_wherever_activations_are_kept_pass_after_pass(
    cached: CachedActivations, tmp_path: Path, kind: str, world: int
) -> None:
    def read(part: Part) -> list[int]:
        activations: Activations = StreamingActivations(FakeSource(), [2, 4], 190, part, ahead=kind.endswith("ahead"))
        if kind == "rolling":
            activations = RollingActivations(FakeSource(), tmp_path, [2, 4], 190, part)
        held_out = HeldOutBatches(activations, [2, 4], 190, 20, 30, part)  # 10 batches, windows of two: rank 2 has none
        rows = []
        try:
            for batch in [*held_out, *held_out]:
                rows += batch.rows.tolist()
                for layer in (2, 4):
                    assert torch.equal(batch.activations[layer], cached.gather(layer, batch.rows.numpy()))
                assert np.array_equal(batch.language.numpy(), cached.language[batch.rows.numpy()])
        finally:
            activations.close(finished=False)
        return rows

    assert sorted(sum(in_ranks(world, read), [])) == sorted([*range(190), *range(190)])
