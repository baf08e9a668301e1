from pathlib import Path

import pytest
import torch

from bisae.activations.cached import Cached
from bisae.activations.manifest import CacheError, layer_path
from bisae.activations.order import ReadingOrder
from bisae.activations.reader import CachedActivations
from bisae.activations.store import Request
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_source import FakeSource, silent


def store(folder: Path, layers: list[int] | str = "all", disk_gib: int | float = 1) -> Cached:
    return Cached(str(folder), disk_gib, evict=False, verify=True, layers=layers)


def opened(store: Cached, source: FakeSource, layers: list[int], part: Part = ALONE) -> CachedActivations:
    return store.open(source, layers, 60, "job", part, lambda done, total: None)


@pytest.mark.parametrize(
    ("also", "computed"), [([], (2,)), ([2, 4], (2, 4)), ("all", (1, 2, 3, 4)), ([0, 1, 5, 24], (0, 1, 2))]
)
def test_one_pass_computes_the_layers_of_other_jobs_but_none_the_lm_lacks(
    tmp_path: Path, also: list[int] | str, computed: tuple[int, ...]
) -> None:
    source = FakeSource()
    activations = opened(store(tmp_path, also), source, [2])
    assert source.passes == [(0, computed), (1, computed)]
    assert torch.equal(activations.read(2, 0, 73), source.all_values(2)[:73])
    again = FakeSource()
    for layer in computed:
        found = opened(store(tmp_path, []), again, [layer]).read(layer, 0, 73)
        assert torch.equal(found, source.all_values(layer)[:73])
    assert again.passes == []


@pytest.mark.parametrize("fails_at", [None, 1])
def test_the_lm_is_released_once_its_activations_are_on_disk_or_have_failed(
    tmp_path: Path, fails_at: int | None
) -> None:
    source = FakeSource(fails_at=fails_at)
    if fails_at is None:
        opened(store(tmp_path), source, [2])
    else:
        with pytest.raises(RuntimeError, match="no memory for shard 1"):
            opened(store(tmp_path), source, [2])
    assert source.released


def test_rank_0_alone_reads_every_byte_to_verify(tmp_path: Path) -> None:
    source = FakeSource()
    folder = tmp_path / opened(store(tmp_path), source, [2]).name
    damaged = layer_path(folder, 2, 0)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    opened(store(tmp_path), source, [2], Part(1, 2))
    for part in (ALONE, Part(0, 2)):
        with pytest.raises(CacheError, match="checksum"):
            opened(store(tmp_path), source, [2], part)


@pytest.mark.parametrize(
    ("tokens", "held_out", "layers", "key"),
    [
        (201, 60, [], "tokens"),
        (200, 201, [], "validation_tokens"),
        (200, 60, "middle", "layers"),
        (200, 60, [-1], "layers"),
    ],
)
def test_what_cannot_be_had_is_refused_by_field_before_any_lm_work(
    tmp_path: Path, tokens: int, held_out: int, layers: list[int] | str, key: str
) -> None:
    training, validation = FakeSource(), FakeSource(checkpoint=20)
    order = ReadingOrder(seed=0, tokens=tokens, batch=10, block=8, pool_batches=4, window_pools=1)
    with pytest.raises(Refused) as refused:
        store(tmp_path, layers).check(Request(training, validation, [2], order, held_out, ALONE), silent)
    assert refused.value.field == key
    assert training.passes == validation.passes == []


def test_what_can_be_had_is_not_refused_and_costs_no_lm_work(tmp_path: Path) -> None:
    training, validation = FakeSource(), FakeSource(checkpoint=20)
    order = ReadingOrder(seed=0, tokens=200, batch=10, block=8, pool_batches=4, window_pools=1)
    store(tmp_path, [1, 24]).check(Request(training, validation, [2], order, 200, ALONE), silent)
    assert training.passes == validation.passes == []


def test_a_disk_too_small_is_refused_before_any_lm_work(tmp_path: Path) -> None:
    source = FakeSource()
    with pytest.raises(Refused, match="^disk_gib="):
        opened(store(tmp_path, disk_gib=1e-6), source, [2])
    assert source.passes == []


def test_a_disk_that_holds_the_training_text_but_not_the_validation_text_is_refused_before_any_lm_work(
    tmp_path: Path,
) -> None:
    training, validation = FakeSource(), FakeSource(checkpoint=20)
    order = ReadingOrder(seed=0, tokens=200, batch=10, block=8, pool_batches=4, window_pools=1)
    one = 200 * (8 * 2 + 4 + 1 + 4 + 2) + 6 * 1024  # bytes of a layer and of the token files, at most
    for disk, fits in ((2 * one, True), (1.5 * one, False)):
        cached = store(tmp_path / str(disk), [], disk / 2**30)
        if fits:
            cached.check(Request(training, validation, [2], order, 200, ALONE), silent)
        else:
            with pytest.raises(Refused, match="^disk_gib="):
                cached.check(Request(training, validation, [2], order, 200, ALONE), silent)
    assert training.passes == validation.passes == []
