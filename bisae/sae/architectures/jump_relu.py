"""The JumpReLU SAE: each latent has a trained threshold (Rajamanoharan et al. 2024, arXiv 2407.14435).

    z    = pre where pre > threshold, else 0
    loss = mean over tokens of |x - x_hat|^2 + l0 * mean over tokens of the number of latents that fire

A jump has no gradient, so thresholds get the paper's estimate, from the pre-activations within half a `bandwidth` of
the threshold: dz/dthreshold = -threshold / bandwidth, dcount/dthreshold = -1 / bandwidth. All others are exact.
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
    """An SAE whose latents fire above a threshold of their own.

    The thresholds themselves are trained. The paper trains their logarithms, which Adam's small steps would hardly move
    in a short run.

    Args:
        l0: weight of the mean number of latents that fire in the loss.
        initial_threshold: of every latent, in the unit of pre-activations of unit-norm inputs.
        bandwidth: width of the gradient estimate around a threshold, in the same unit.
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
        # An optimizer step may make a threshold negative; later steps bring it back.
        return Codes.where(pre_activations > self.threshold.clamp_min(0), pre_activations)

    def objective(
        self,
        x: Float[Tensor, "token d_model"],
        dead: Bool[Tensor, " latent"] | None = None,
        average: Average = alone,
        take: Take | None = None,
    ) -> TrainingLoss:
        """`SparseAutoencoder.objective`, without the auxiliary loss."""
        objective, grad_threshold = self._jump(x)
        # Its value is 0; its gradient with respect to the threshold is `grad_threshold`.
        attached = (self.threshold - self.threshold.detach()) @ grad_threshold
        return TrainingLoss(
            differentiable_loss(objective, self.weights, take) + attached, objective.codes, objective.x_hat
        )

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
    """The objective, and the estimated gradient of the (not negative) `threshold`."""
    centred = x - weights.b_pre
    # Latents just below their threshold are entries too, with value 0: they count in the gradient estimate.
    near = encode(centred, weights, lambda pre: Codes.where(pre > threshold - bandwidth / 2, pre))
    thresholds = threshold[near.indices]
    codes = replace(near, values=near.values.where(near.values > thresholds, 0))
    objective = objective_of(x, centred, codes, weights)
    with torch.autocast(x.device.type, enabled=False):
        products, grad_x_hat, _ = objective.grad_W_dec
        grad_entry = -(thresholds * products.dots(grad_x_hat, weights.W_dec) + l0 / len(x)) / bandwidth
        grad_threshold = products.totals(grad_entry.masked_fill(near.values >= thresholds + bandwidth / 2, 0))
        return objective._replace(loss=objective.loss + l0 * codes.values.sign().sum() / len(x)), grad_threshold
