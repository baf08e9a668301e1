"""Against the definitions written out on dense tensors."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bisae.convert import saebench_scores
from bisae.convert.saebench_scores import TokenScores, density_scores, largest_cosine, weight_scores
from bisae.sae import TopK
from tests.convert.saes import random_sae

TOKENS = 50


@pytest.fixture
def sae() -> TopK:
    torch.manual_seed(0)
    made = random_sae(TopK)
    assert isinstance(made, TopK)
    return made


@pytest.fixture
def x() -> Tensor:
    return torch.randn(TOKENS, 8, generator=torch.Generator().manual_seed(1)) * 3 + 2


SEQUENCE = torch.arange(TOKENS) // 7


@torch.no_grad()
def as_saebench_does(sae: TopK, x: Tensor) -> dict[str, float]:
    """Its `get_sparsity_and_variance_metrics` on one batch, in float64; mse as SAELens has it."""
    codes, out = sae.encode(x).dense().double(), sae.reconstruct(x).activation.double()
    x = x.double()
    error = (x - out).pow(2).sum(-1)
    squares, elements = x.pow(2).sum(-1).mean(), x.pow(2).mean(0).mean()
    return {
        "l2_norm_in": x.norm(dim=-1).mean().item(),
        "l2_norm_out": out.norm(dim=-1).mean().item(),
        "l2_ratio": (out.norm(dim=-1) / x.norm(dim=-1)).mean().item(),
        "relative_reconstruction_bias": ((out.norm(dim=-1) ** 2).mean() / (x * out).sum(-1).mean()).item(),
        "l0": (codes != 0).sum(-1).double().mean().item(),
        "l1": codes.sum(-1).mean().item(),
        "explained_variance": (1 - error.mean() / (squares - elements**2)).item(),
        "explained_variance_legacy": (1 - error / (x - x.mean(0)).pow(2).sum(-1)).mean().item(),
        "mse": error.mean().item(),
        "cossim": cosine_similarity(x, out, dim=-1).mean().item(),
        "r2": (1 - error.sum() / (x - x.mean(0)).pow(2).sum()).item(),
    }


@pytest.mark.parametrize("rows", [1000, 9])
def test_scores_are_saebenchs_however_they_are_cut(
    rows: int, sae: TopK, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saebench_scores, "DENSE", rows * sae.latents)
    found = TokenScores.of(sae, x, SEQUENCE).scores()
    assert found == pytest.approx(as_saebench_does(sae, x), rel=1e-5)


def test_densities_and_firing_sequences_are_counted_by_latent(
    sae: TopK, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saebench_scores, "DENSE", 9 * sae.latents)  # cuts sequences
    found = TokenScores.of(sae, x, SEQUENCE)
    on = (sae.encode(x).dense() > 0).numpy()
    np.testing.assert_array_equal(found.densities(), on.mean(0))
    expected = sum(on[SEQUENCE.numpy() == number].any(0).astype(int) for number in range(8))
    np.testing.assert_array_equal(found.sequences, expected)


def test_density_scores_are_shares_of_latents_and_of_firing() -> None:
    found = density_scores(np.array([0.0, 0.005, 0.05, 0.145]))
    assert found == {
        "frac_alive": 0.75,
        "freq_over_1_percent": 0.5,
        "freq_over_10_percent": 0.25,
        "normalized_freq_over_1_percent": pytest.approx(0.975),
        "normalized_freq_over_10_percent": pytest.approx(0.725),
    }


def test_weight_scores_are_of_each_latent(sae: TopK) -> None:
    found = weight_scores(sae)
    W_enc, W_dec = sae.W_enc.detach(), sae.W_dec.detach()
    np.testing.assert_allclose(found["encoder_norm"], W_enc.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(found["encoder_decoder_cosine_sim"], cosine_similarity(W_enc, W_dec), rtol=1e-5)
    every = cosine_similarity(W_dec[:, None], W_dec[None], dim=-1) - 2 * torch.eye(len(W_dec))
    np.testing.assert_allclose(found["max_decoder_cosine_sim"], every.amax(1), rtol=1e-5)
    assert largest_cosine(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).tolist() == [1.0, 1.0, 0.0]
