"""SAEs on LM activations that are not normalised, as most other libraries train them."""

from jaxtyping import Float
from torch import Tensor

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
