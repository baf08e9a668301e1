"""The JumpReLU SAE: a learnt threshold for each latent (Rajamanoharan et al. 2024, arXiv 2407.14435).

    z    = pre where pre > threshold, else 0
    loss = mean over tokens of |x - x_hat|^2 + l0 * mean over tokens of the number of latents that fire

Jumps have no gradient, so thresholds get the paper's estimate of one, from the pre-activations
within half a `bandwidth` of them: dz/dthreshold = -threshold / bandwidth, dcount/dthreshold = -1 / bandwidth.
All other gradients are exact.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative, Positive
from bisae.sae.encoder import Codes, Weights, encode
from bisae.sae.objective import Average, Objective, Take, alone, differentiable_loss, objective_of
from bisae.sae.sparse_autoencoder import SparseAutoencoder, TrainingLoss, refuse_negative


class JumpReLU(SparseAutoencoder):
    """Kept sparse by `l0` times the number of latents that fire.

    `initial_threshold` and `bandwidth` are of pre-activations of inputs of norm 1. The thresholds are trained as they
    are, not as logarithms as in the paper, with which Adam's small steps would hardly move them in a short run.
    """

    architecture = "jump_relu"

    def __init__(
        self,
        d_model: int,
        latents: Count,
        l0: NotNegative,
        initial_threshold: NotNegative,
        bandwidth: Positive,
        seed: Index,
    ) -> None:
        super().__init__(d_model, latents, seed)
        refuse_negative(l0=l0, initial_threshold=initial_threshold)
        if not (math.isfinite(bandwidth) and bandwidth > 0):
            raise Refused("bandwidth", bandwidth, "must be finite and above 0")
        self.l0, self.initial_threshold, self.bandwidth = l0, initial_threshold, bandwidth
        self.threshold = nn.Parameter(torch.full((latents,), float(initial_threshold)))

    @property
    def arguments(self) -> dict[str, int | float | bool]:
        return {
            "d_model": self.d_model,
            "latents": self.latents,
            "l0": self.l0,
            "initial_threshold": self.initial_threshold,
            "bandwidth": self.bandwidth,
            "seed": self.seed,
        }

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        # A step may take a threshold below 0; the next ones bring it back.
        return Codes.where(pre_activations > self.threshold.clamp_min(0), pre_activations)

    def objective(
        self,
        x: Float[Tensor, "token d_model"],
        dead: Bool[Tensor, " latent"] | None = None,
        average: Average = alone,
        take: Take | None = None,
    ) -> TrainingLoss:
        """As of all SAEs; there is no auxiliary loss."""
        found, grad_threshold = self._jump(x)
        # Of value 0; attaches a gradient that is known to a parameter.
        attached = (self.threshold - self.threshold.detach()) @ grad_threshold
        return TrainingLoss(differentiable_loss(found, self.weights, take) + attached, found.codes, found.x_hat)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return self._jump(x)[0]

    def _jump(self, x: Float[Tensor, "token d_model"]) -> tuple[Objective, Float[Tensor, " latent"]]:
        return jump_relu_objective(x, self.weights, self.threshold.clamp_min(0), self.l0, self.bandwidth)


@torch.no_grad()
def jump_relu_objective(
    x: Float[Tensor, "token d_model"],
    weights: Weights,
    threshold: Float[Tensor, " latent"],
    l0: float,
    bandwidth: float,
) -> tuple[Objective, Float[Tensor, " latent"]]:
    """The objective, and the estimated gradient of `threshold`, which is not negative."""
    centred = x - weights.b_pre
    # Those just below their threshold too: entries of value 0.
    near = encode(centred, weights, lambda pre: Codes.where(pre > threshold - bandwidth / 2, pre))
    thresholds = threshold[near.indices]
    codes = replace(near, values=near.values.where(near.values > thresholds, 0))
    found = objective_of(x, centred, codes, weights)
    with torch.autocast(x.device.type, enabled=False):
        products, grad_x_hat, _ = found.grad_W_dec
        grad_entry = -(thresholds * products.dots(grad_x_hat, weights.W_dec) + l0 / len(x)) / bandwidth
        grad_threshold = products.totals(grad_entry.masked_fill(near.values >= thresholds + bandwidth / 2, 0))
        return found._replace(loss=found.loss + l0 * codes.values.sign().sum() / len(x)), grad_threshold
