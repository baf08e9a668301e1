"""SAEs on LM activations that are not normalised, as most other libraries train them."""

import torch
from jaxtyping import Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index
from bisae.sae.architectures.batch_topk import BatchTopK
from bisae.sae.architectures.jump_relu import JumpReLU
from bisae.sae.architectures.matryoshka import Matryoshka
from bisae.sae.architectures.relu_l1 import ReLUL1
from bisae.sae.architectures.topk import TopK
from bisae.sae.sparse_autoencoder import SparseAutoencoder


class RawInputs(SparseAutoencoder):
    """An SAE that reads the LM's activations unchanged: `x` is the activation, and `norm` is 1 for every token."""

    def normalize(
        self, activation: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
        activation = activation.to(self.W_enc.dtype)
        return activation, activation.new_ones(len(activation))


class RawTopK(RawInputs, TopK):
    architecture = "raw_topk"


class RawReLU(RawInputs, ReLUL1):
    architecture = "raw_relu_l1"


class Identity(RawReLU):
    """The codes are the inputs: for activations that are codes already. It is saved, and loaded, as a `RawReLU`.

    Raises Refused (`latents`) if there are not as many as dimensions.
    """

    def __init__(self, d_model: int, latents: Count, seed: Index = 0) -> None:
        if latents != d_model:
            raise Refused("latents", latents, f"the identity needs one for each of the {d_model} dimensions")
        super().__init__(d_model, latents, 0.0, seed)

    def initialize_b_pre(self, x: Float[Tensor, "token d_model"]) -> None:
        """It stays 0."""

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Also undoes the optimizer's step: gradients are 0 but for rounding."""
        for weights in self.parameters():
            weights.copy_(torch.eye(self.latents) if weights.ndim > 1 else torch.zeros(self.latents))


class RawJumpReLU(RawInputs, JumpReLU):
    architecture = "raw_jump_relu"


RAW: dict[type[SparseAutoencoder], type[SparseAutoencoder]] = {
    TopK: RawTopK,
    ReLUL1: RawReLU,
    JumpReLU: RawJumpReLU,
    # After training they encode by a threshold, the same for all latents.
    BatchTopK: RawJumpReLU,
    Matryoshka: RawJumpReLU,
}
