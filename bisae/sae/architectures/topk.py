"""The TopK SAE, the architecture of the study (Gao et al. 2024, section 2.3)."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative
from bisae.sae.encoder import Codes, top_k
from bisae.sae.kernels.candidates import Candidates
from bisae.sae.kernels.choice import quickest
from bisae.sae.kernels.dense import exact
from bisae.sae.objective import COEFFICIENT, Objective, sparse_objective
from bisae.sae.sparse_autoencoder import SparseAutoencoder


class TopK(SparseAutoencoder):
    """z = TopK(ReLU(W_enc (x - b_pre) + b_enc)): each token keeps its k largest positive latents.

    Training may compute only candidates for these in float32, which another product proposes, with a proof that no
    other latent is among the k largest (see `bisae.sae.kernels.candidates`).
    """

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
        self.k, self.encoder = k, Candidates(k, "auto")

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

    def set_candidates(self, wanted: int | str) -> None:
        if type(self)._objective is not TopK._objective:  # a class of its own way
            super().set_candidates(wanted)
        self.encoder = Candidates(self.k, wanted)

    def extra_metrics(self) -> dict[str, float]:
        """`not_accepted`: the share of tokens that needed the whole product in float64, if there are candidates."""
        share = self.encoder.share()
        return {} if share is None else {"not_accepted": share}

    def extra_state(self) -> dict[str, Any]:
        """How many candidates a token has by now, and what has proposed them."""
        return {"candidates": self.encoder.per_token, "proposed_by": self.encoder.ran}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.encoder.per_token = state.get("candidates", 0)  # a save without it is of a job that had none
        self.encoder.ran = list(state.get("proposed_by", ()))

    @property
    def computed(self) -> str:
        by = " and then ".join(self.encoder.ran)
        return f"candidates of a product in {by}, decided in float32 and float64" if by else super().computed

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        precision = "32-true" if exact(x) else "bf16-mixed"
        if quickest(x.device, self.latents, self.d_model, precision, len(x)) == "triton":
            from bisae.sae.architectures.triton_topk import triton_objective

            return triton_objective(x, self.weights, self.k)
        return sparse_objective(x, self.weights, self.encoder)
