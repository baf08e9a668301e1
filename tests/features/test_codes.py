from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bisae.features import codes as codes_module
from bisae.features.codes import CodesFolder, Encoded, Firings, encode
from bisae.sae import ReLUL1, TopK
from tests.features.small_text import random_sae, reading_of, tokens_of


def written(folder: Path, sae: TopK, cuts: list[int]) -> tuple[CodesFolder, torch.Tensor]:
    """Codes in windows that begin at `cuts`, and the same dense."""
    reading = reading_of(tokens_of([5, 9, 4, 12]))
    values = next(reading.rows(np.arange(30), [2]))[1][2]
    codes = CodesFolder(folder, sae.latents)
    for start, stop in zip(cuts, [*cuts[1:], 30], strict=True):
        codes.write(start, encode(sae, start, values[start:stop]))
    codes.finish(cuts)
    return codes, sae.encode(values).dense().detach()


@pytest.mark.parametrize("cuts", [[0], [0, 1, 17], [0, 29]])
def test_firings_by_latent_are_the_dense_codes(tmp_path: Path, cuts: list[int]) -> None:
    sae = random_sae()
    codes, dense = written(tmp_path, sae, cuts)
    for first, after in [(0, 10), (0, 1), (3, 8), (9, 10)]:
        block = codes.block(first, after)
        found = np.zeros((30, after - first), np.float32)
        found[block.rows, block.latent_of_entry()] = block.values
        assert np.array_equal(found, dense[:, first:after].half().float().numpy())
        assert np.array_equal(found > 0, dense[:, first:after].numpy() > 0)
        assert all(np.all(np.diff(block.rows[a:b]) > 0) for a, b in zip(block.offsets, block.offsets[1:], strict=False))
    early = codes.block(0, 10, stop=13)
    assert len(early.rows) == int((dense[:13] > 0).sum()) and early.rows.max() < 13


def test_blocks_hold_every_latent_once_however_small_they_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, dense = written(tmp_path, random_sae(), [0, 11])
    monkeypatch.setattr(codes_module, "ENTRIES", 15)
    blocks = list(codes.blocks())
    assert len(blocks) > 2 and [block.first for block in blocks[1:]] == [b.first + b.latents for b in blocks[:-1]]
    assert sum(len(block.rows) for block in blocks) == int((dense > 0).sum())
    assert sum(block.latents for block in blocks) == 10


def test_windows_and_tails_of_latents_without_a_firing_are_empty_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = random_sae()
    with torch.no_grad():
        sae.b_enc[6:] = -1000.0
    codes, dense = written(tmp_path / "tail", sae, [0, 1])
    monkeypatch.setattr(codes_module, "ENTRIES", 5)
    assert sum(len(block.rows) for block in codes.blocks()) == int((dense > 0).sum())
    assert len(codes.block(6, 10).rows) == 0
    with torch.no_grad():
        sae.b_enc[:] = -1000.0
    codes, _ = written(tmp_path / "dead", sae, [0, 1])
    assert [(block.latents, len(block.rows)) for block in codes.blocks()] == [(10, 0)]


def test_the_maximum_is_that_before_topk_and_at_least_zero(tmp_path: Path) -> None:
    sae = random_sae(k=1)
    with torch.no_grad():
        sae.b_enc[4] = -100.0
    codes, dense = written(tmp_path, sae, [0, 7])
    reading = reading_of(tokens_of([5, 9, 4, 12]))
    values = next(reading.rows(np.arange(30), [2]))[1][2]
    before = sae.pre_activations(sae.normalize(values)[0]).amax(0).clamp_min(0).detach()
    assert np.allclose(codes.maximum(), before, rtol=1e-6) and codes.maximum()[4] == 0
    assert (codes.maximum() > dense.amax(0).numpy() + 0.01).any()  # TopK hides some maxima


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_activations_that_are_not_finite_are_refused_and_leave_no_latent_without_contexts(wrong: float) -> None:
    values = torch.randn(30, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    values[17, 1] = wrong
    with pytest.raises(
        ValueError, match="^activations of tokens 40 to 69 of the text, or the SAE's weights, are not finite"
    ):
        encode(random_sae(), 40, values)


def test_codes_of_another_architecture_are_ragged_and_hold_no_fillers() -> None:
    sae = ReLUL1(6, 10, l1=0.1, encoder_bias=True)
    values = torch.randn(20, 6)
    firings = encode(sae, 100, values).firings
    dense = sae.encode(values).dense()
    assert len(firings.rows) == int((dense > 0).sum()) and (firings.values > 0).all()
    assert firings.rows.min() >= 100


def test_a_firing_is_four_bytes_and_a_latent_six(tmp_path: Path) -> None:
    random, latents, rows = np.random.default_rng(0), 512, 2**16
    fires = np.flatnonzero(random.random(latents * rows) < 0.02)
    fires = np.union1d(fires, np.arange(rows))  # latent 0 always: a count of more than 16 bits
    offsets = np.searchsorted(fires, np.arange(latents + 1) * rows)
    firings = Firings(0, offsets, fires % rows + 7, random.random(len(fires)).astype(np.float32) + 0.1)
    codes = CodesFolder(tmp_path, latents)
    codes.write(7, Encoded(firings, np.ones(latents, np.float32)))
    codes.finish([7])
    assert codes.path(7).stat().st_size < 4 * len(fires) + 8 * latents + 1000
    read = codes.block(0, latents)
    assert np.array_equal(read.rows, firings.rows) and np.array_equal(read.offsets, offsets)
    assert np.abs(read.values / firings.values - 1).max() <= 2**-11


def test_tiny_and_huge_activations_stay_firings(tmp_path: Path) -> None:
    codes = CodesFolder(tmp_path, 2)
    for start, values in enumerate([[1e-12, 3e-8], [7e4, 1e-12]]):
        firings = Firings(0, np.array([0, 1, 2]), np.full(2, start), np.array(values, np.float32))
        codes.write(start, Encoded(firings, np.ones(2, np.float32)))
    codes.finish([0, 1])
    found = codes.block(0, 2)
    assert found.values.min() > 0 and found.values[1] == 7e4


def test_codes_of_earlier_versions_are_read_as_the_same_values(tmp_path: Path) -> None:
    codes, _ = written(tmp_path / "new", random_sae(), [0, 11])
    old = CodesFolder(tmp_path / "old", 10)
    reading = reading_of(tokens_of([5, 9, 4, 12]))
    values = next(reading.rows(np.arange(30), [2]))[1][2]
    for start, end in [(0, 11), (11, 30)]:
        encoded = encode(random_sae(), start, values[start:end])
        rows = (encoded.firings.rows - start).astype(np.uint32)
        of_firings = {"offsets": encoded.firings.offsets, "rows": rows, "values": encoded.firings.values}
        old.folder.mkdir(exist_ok=True)
        save_file({"maximum": encoded.maximum, **of_firings}, old.path(start))
    old.finish([0, 11])
    stops: list[int | None] = [None, 11, 13, 2]
    for stop in stops:
        for name in ("offsets", "rows", "values"):
            assert np.array_equal(getattr(codes.block(2, 9, stop), name), getattr(old.block(2, 9, stop), name))


def test_deleted_codes_leave_nothing_and_are_not_finished(tmp_path: Path) -> None:
    codes, _ = written(tmp_path, random_sae(), [0, 11])
    codes.delete()
    assert not codes.finished and not list(tmp_path.glob("*.safetensors"))
