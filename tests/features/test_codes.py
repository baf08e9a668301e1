from pathlib import Path

import numpy as np
import pytest
import torch

from bisae.features import codes as codes_module
from bisae.features.codes import CodesFolder, encode
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
        assert np.allclose(found, dense[:, first:after].numpy(), rtol=1e-6)
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


def test_codes_of_another_architecture_are_ragged_and_hold_no_fillers() -> None:
    sae = ReLUL1(6, 10, l1=0.1, encoder_bias=True)
    values = torch.randn(20, 6)
    firings = encode(sae, 100, values).firings
    dense = sae.encode(values).dense()
    assert len(firings.rows) == int((dense > 0).sum()) and (firings.values > 0).all()
    assert firings.rows.min() >= 100
