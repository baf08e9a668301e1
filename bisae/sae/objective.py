"""What training minimises, with its gradients written out.

    z     = select(W_enc (x - b_pre) + b_enc)          TopK: Gao et al. 2024, section 2.3; ReLU: section 2.2
    x_hat = W_dec^T z + b_pre                          (rows of W_dec are directions)
    loss  = mean over tokens of |x - x_hat|^2          the square summed over d_model
            + l1 * mean over tokens of |z|_1           ReLU-L1 only

x is the LM's activation divided by its L2 norm. The usual autograd would run six dense products of the encoder's
size. Only the kept, positive activations have a gradient, so one dense product is enough; the rest is sums over
entries. Selection is constant under small changes of the weights, so these are the exact gradients.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bisae.sae.codes import Codes
from bisae.sae.encoder import encode
from bisae.sae.products import RowSums, SparseProducts, products_of
from bisae.sae.selection import positive, top_k
from bisae.sae.weights import Weights

Encode = Callable[[Tensor, Weights], Codes]  # of centred inputs
Take = Callable[[Tensor, RowSums, bool], None]  # of a matrix, its gradient, and whether its rows have norm 1


class Objective(NamedTuple):
    """A loss, all it was made from, and its gradients; nothing here is attached to a graph."""

    loss: Float[Tensor, ""]
    codes: Codes
    x_hat: Float[Tensor, "token d_model"]
    of_W_enc: RowSums
    of_b_enc: Float[Tensor, " latent"]
    of_W_dec: RowSums
    of_b_pre: Float[Tensor, " d_model"]

    @property
    def gradients(self) -> Weights:
        return Weights(self.of_W_enc.whole(), self.of_b_enc, self.of_W_dec.whole(), self.of_b_pre)


@torch.no_grad()
def sparse_objective(
    x: Float[Tensor, "token d_model"], weights: Weights, encoder: Encode, l1: float = 0.0
) -> Objective:
    """The objective of any SAE whose `encoder` keeps some pre-activations as they are and drops the others.

    Under autocast only the encoder's product has the lower precision.
    """
    centred = x - weights.b_pre
    return objective_of(x, centred, encoder(centred, weights), weights, l1)


@torch.no_grad()
def objective_of(
    x: Float[Tensor, "token d_model"],
    centred: Float[Tensor, "token d_model"],
    codes: Codes,
    weights: Weights,
    l1: float = 0.0,
    kind: type[SparseProducts] | None = None,
) -> Objective:
    """`sparse_objective` where the codes are there already; `centred` is x - b_pre.

    `kind`: of the products, where it is not to be the quicker of PyTorch's two.
    """
    tokens = len(x)
    with torch.autocast(x.device.type, enabled=False):
        products = (kind or products_of)(codes)
        x_hat = products.decode(weights.W_dec) + weights.b_pre
        error = x_hat - x
        # Row by row first: one sum over all elements would lose 1e-5 in float32.
        loss = error.square().sum(1).mean() + l1 * codes.values.sum() / tokens

        of_x_hat = error * (2 / tokens)
        of_z = products.dots(of_x_hat, weights.W_dec) + l1 / tokens
        of_z = of_z.masked_fill(codes.values <= 0, 0)  # fillers of TopK: ReLU is flat there
        of_b_enc = products.totals(of_z)
        return Objective(
            loss,
            codes,
            x_hat,
            of_W_enc=RowSums(products, centred, of_z),
            of_b_enc=of_b_enc,
            of_W_dec=RowSums(products, of_x_hat, codes.values),
            # b_pre is added to x_hat and subtracted from x; summing over tokens before W_enc spares a dense product.
            of_b_pre=of_x_hat.sum(0) - of_b_enc @ weights.W_enc,
        )


def topk_objective(x: Float[Tensor, "token d_model"], weights: Weights, k: int) -> Objective:
    """TopK SAE, no sparsity penalty."""
    return sparse_objective(x, weights, partial(encode, select=partial(top_k, k=k)))


def relu_l1_objective(x: Float[Tensor, "token d_model"], weights: Weights, l1: float) -> Objective:
    """ReLU SAE with `l1` times the mean L1 norm of the codes."""
    return sparse_objective(x, weights, partial(encode, select=positive), l1)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, objective: Objective, take: Take | None, *parameters: Tensor) -> Tensor:
        ctx.objective, ctx.take, ctx.parameters = objective, take, Weights(*parameters)
        return objective.loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_loss: Tensor) -> tuple[Tensor | None, ...]:
        found, (scale,) = ctx.objective, of_loss
        W_enc, W_dec = found.of_W_enc.times(scale), found.of_W_dec.times(scale)
        if ctx.take:
            ctx.take(ctx.parameters.W_enc, W_enc, False)
            ctx.take(ctx.parameters.W_dec, W_dec, True)
            gradients = None, scale * found.of_b_enc, None, scale * found.of_b_pre
        else:
            gradients = W_enc.whole(), scale * found.of_b_enc, W_dec.whole(), scale * found.of_b_pre
        wanted = zip(gradients, ctx.needs_input_grad[2:], strict=True)
        return None, None, *(gradient if needed else None for gradient, needed in wanted)


def differentiable_loss(objective: Objective, parameters: Weights, take: Take | None = None) -> Float[Tensor, ""]:
    """`objective.loss`, attached to `parameters`, so that `.backward()`, clipping, DDP and any optimizer work.

    With `take` backward gives the matrices' gradients to it, not yet summed, in place of their `.grad`.
    x gets no gradient, even if it asks for one: an SAE is trained on activations, not through them.
    """
    return _Loss.apply(objective, take, *parameters)
