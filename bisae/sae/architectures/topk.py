"""The TopK SAE, the architecture of the study (Gao et al. 2024, section 2.3)."""

from jaxtyping import Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative
from bisae.sae.encoder import Codes, top_k
from bisae.sae.objective import COEFFICIENT, Objective, topk_objective
from bisae.sae.sparse_autoencoder import SparseAutoencoder


class TopK(SparseAutoencoder):
    """z = TopK(ReLU(W_enc (x - b_pre) + b_enc)): each token keeps its k largest positive latents."""

    architecture = "topk"

    def __init__(
        self,
        d_model: int,
        latents: Count,
        k: Count,
        seed: Index = 0,
        aux_k: Index = 0,
        aux_coefficient: NotNegative = COEFFICIENT,
    ) -> None:
        super().__init__(d_model, latents, seed, aux_k, aux_coefficient)
        if not 1 <= k <= latents:
            raise Refused("k", k, f"must be between 1 and latents={latents}")
        self.k = k

    @property
    def arguments(self) -> dict[str, int | float | bool]:
        return {
            "d_model": self.d_model,
            "latents": self.latents,
            "k": self.k,
            "seed": self.seed,
            "aux_k": self.aux_k,
            "aux_coefficient": self.aux_coefficient,
        }

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations, self.k)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return topk_objective(x, self.weights, self.k)
