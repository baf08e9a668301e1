"""The plain SAE: dense matrices and autograd, in the notation of the papers. What the sparse code must equal."""

from typing import NamedTuple

import torch
from torch import Tensor

from bisae.sae.encoder import Weights


class Dense(NamedTuple):
    loss: Tensor
    x_hat: Tensor
    gradients: Weights


def random_weights(latents: int, d_model: int, seed: int, dtype: torch.dtype = torch.float64) -> Weights:
    """Weights as after some training: encoder no longer the decoder's transpose, no bias zero, latents 0-2 dead."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    W_dec = torch.nn.functional.normalize(normal(latents, d_model), dim=1)
    b_enc = 0.1 * normal(latents)
    b_enc[:3] = -100
    return Weights(W_dec + 0.3 * normal(latents, d_model), b_enc, W_dec, 0.2 * normal(d_model))


def unit_rows(tokens: int, d_model: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(tokens, d_model, generator=g, dtype=dtype), dim=1)


def dense_pre_activations(x: Tensor, weights: Weights) -> Tensor:
    return (x - weights.b_pre) @ weights.W_enc.T + weights.b_enc


def dense_objective(x: Tensor, weights: Weights, kept: Tensor, l1: float = 0.0) -> Dense:
    """Loss and gradients with the latents chosen by the mask `kept` "token latent"."""
    leaves = Weights(*(w.detach().clone().requires_grad_() for w in weights))
    z = dense_pre_activations(x, leaves).relu() * kept
    x_hat = z @ leaves.W_dec + leaves.b_pre
    loss = ((x - x_hat) ** 2).sum(1).mean() + l1 * z.abs().sum(1).mean()
    return Dense(loss.detach(), x_hat.detach(), Weights(*torch.autograd.grad(loss, list(leaves))))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference over the L2 norm of what was expected, in float64."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())
