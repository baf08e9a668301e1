"""The ReLU SAE with an L1 penalty, the study's background model."""

from jaxtyping import Float
from torch import Tensor

from bisae.runtime.ranges import Count, Index, NotNegative
from bisae.sae.encoder import Codes, positive
from bisae.sae.objective import Objective, relu_l1_objective
from bisae.sae.sparse_autoencoder import SparseAutoencoder, refuse_negative


class ReLUL1(SparseAutoencoder):
    """z = ReLU(W_enc (x - b_pre) + b_enc), kept sparse by `l1` times its L1 norm in the loss.

    The study's formula has no encoder bias: without `encoder_bias`, b_enc stays zero and gets no gradient.
    """

    architecture = "relu_l1"

    def __init__(
        self, d_model: int, latents: Count, l1: NotNegative, seed: Index = 0, encoder_bias: bool = False
    ) -> None:
        super().__init__(d_model, latents, seed)
        refuse_negative(l1=l1)
        self.l1, self.encoder_bias = l1, encoder_bias
        self.b_enc.requires_grad_(encoder_bias)

    @property
    def arguments(self) -> dict[str, int | float | bool]:
        return {
            "d_model": self.d_model,
            "latents": self.latents,
            "l1": self.l1,
            "seed": self.seed,
            "encoder_bias": self.encoder_bias,
        }

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return positive(pre_activations)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return relu_l1_objective(x, self.weights, self.l1)
