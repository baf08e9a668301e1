"""The BatchTopK SAE: on average a token keeps k latents (Bussmann et al. 2024, arXiv 2412.06410)."""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative, Share
from bisae.sae.encoder import Codes, encode, largest
from bisae.sae.objective import Average, Objective, Take, alone, sparse_objective
from bisae.sae.sparse_autoencoder import SparseAutoencoder, TrainingLoss


class BatchTopK(SparseAutoencoder):
    """Training keeps the k * tokens largest positive pre-activations of a batch, inference those above `threshold`.

    So after training a token's codes do not depend on its batch. `threshold` is a running mean of the smallest
    activation kept, and 0 before the first step. With several ranks, each selects from its own part of the batch, and
    the threshold follows the mean of their smallest activations.

    Args:
        k: mean number of latents of a token in training.
        threshold_rate: weight of the newest batch in the running mean.
    """

    architecture = "batch_topk"
    threshold: Tensor

    def __init__(
        self,
        d_model: int,
        latents: Count,
        k: Count,
        threshold_rate: Share,
        seed: Index,
        aux_k: Index,
        aux_coefficient: NotNegative,
    ) -> None:
        super().__init__(d_model, latents, seed, aux_k, aux_coefficient)
        if not 1 <= k <= latents:
            raise Refused("k", k, f"must be between 1 and latents={latents}")
        if not 0 < threshold_rate <= 1:
            raise Refused("threshold_rate", threshold_rate, "must be above 0, at most 1")
        self.k, self.threshold_rate = k, threshold_rate
        self.register_buffer("threshold", torch.zeros(()))

    @property
    def arguments(self) -> dict[str, int | float | bool | str]:
        return {
            "d_model": self.d_model,
            "latents": self.latents,
            "k": self.k,
            "threshold_rate": self.threshold_rate,
            "seed": self.seed,
            "aux_k": self.aux_k,
            "aux_coefficient": self.aux_coefficient,
        }

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return Codes.where(pre_activations > self.threshold, pre_activations)

    def objective(
        self,
        x: Float[Tensor, "token d_model"],
        dead: Bool[Tensor, " latent"] | None = None,
        average: Average = alone,
        take: Take | None = None,
    ) -> TrainingLoss:
        """`SparseAutoencoder.objective`, and an update of the threshold."""
        training_loss = super().objective(x, dead, average, take)
        self._follow(training_loss.codes.values, average)
        return training_loss

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return sparse_objective(x, self.weights, partial(encode, select=partial(batch_top_k, k=self.k)))

    @torch.no_grad()
    def _follow(self, values: Float[Tensor, " entry"], average: Average) -> None:
        none = self.threshold.new_full((1,), torch.inf)
        smallest = average(torch.cat([values[values > 0], none]).min())
        mean = torch.where(self.threshold == 0, smallest, self.threshold.lerp(smallest, self.threshold_rate))
        self.threshold.copy_(torch.where(smallest.isfinite(), mean, self.threshold))


def batch_top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """The k * tokens largest pre-activations of the batch, after ReLU; entries of value 0 where fewer are positive."""
    flat = pre_activations.detach().flatten()
    codes = Codes.at(largest(flat[None], k * len(pre_activations))[0].sort()[0], pre_activations)
    return replace(codes, values=codes.values.relu())
