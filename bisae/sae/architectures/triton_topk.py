"""A TopK SAE whose training step uses Triton kernels for the selection and the sparse products."""

import importlib.util
import os
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count
from bisae.sae.architectures.topk import TopK
from bisae.sae.encoder import Codes, Weights
from bisae.sae.kernels.products import RowSums
from bisae.sae.objective import Objective, objective_of


class TritonTopK(TopK):
    """A TopK SAE for a GPU, saved as TopK. With TRITON_INTERPRET=1 in the environment Triton's interpreter runs it."""

    def __init__(self, d_model: int, latents: Count, k: Count, **settings: Any) -> None:
        super().__init__(d_model, latents, k, **settings)
        if importlib.util.find_spec("triton") is None:
            raise Refused("sae", "topk_triton", "needs the package triton: install it, or take sae=topk")
        if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
            raise Refused("sae", "topk_triton", "needs a CUDA GPU: take sae=topk")

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        from bisae.sae.kernels.triton_selection import top_k

        return top_k(pre_activations, self.k)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return triton_objective(x, self.weights, self.k)


@torch.no_grad()
def triton_objective(x: Float[Tensor, "token d_model"], weights: Weights, k: int) -> Objective:
    """The same as `topk_objective`."""
    from bisae.sae.kernels.triton_products import TritonProducts
    from bisae.sae.kernels.triton_selection import encode
    from bisae.sae.kernels.triton_step import decode

    centred = x - weights.b_pre
    codes = encode(centred, weights, k)
    with torch.autocast(x.device.type, enabled=False):
        decoded = decode(x, codes, weights)
        if decoded is None:
            return objective_of(x, centred, codes, weights, kind=TritonProducts)
        products = TritonProducts(codes)
        grad_b_enc = products.totals(decoded.grad_z)
        return Objective(
            decoded.errors.mean(),
            codes,
            decoded.x_hat,
            grad_W_enc=RowSums(products, centred, decoded.grad_z),
            grad_b_enc=grad_b_enc,
            grad_W_dec=RowSums(products, decoded.grad_x_hat, codes.values),
            grad_b_pre=decoded.grad_x_hat.sum(0) - grad_b_enc @ weights.W_enc,
        )
