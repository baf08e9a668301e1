"""The four tensors of a sparse autoencoder, as plain values."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Weights(NamedTuple):
    """Parameters, or their gradients, of one SAE.

    Both matrices are stored latent-major, so that everything sparse touches whole contiguous rows:
    row i of `W_enc` is the direction latent i reads, row i of `W_dec` the direction it writes.
    """

    W_enc: Float[Tensor, "latent d_model"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_model"]
    b_pre: Float[Tensor, " d_model"]


@torch.no_grad()
def normalize_rows(directions: Float[Tensor, "latent d_model"]) -> None:
    """Divide every row by its L2 norm + machine epsilon, in place."""
    norm = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    directions.div_(norm + torch.finfo(norm.dtype).eps)
