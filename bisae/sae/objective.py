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
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bisae.sae.encoder import Codes, Weights, encode, positive, pre_activations, top_k
from bisae.sae.kernels.products import RowSums, SparseProducts, products_of, weighted_sums

Encode = Callable[[Tensor, Weights], Codes]  # of centred inputs
Take = Callable[[Tensor, RowSums, bool], None]  # of a matrix, its gradient, and whether its rows have norm 1


class Objective(NamedTuple):
    """A loss, all it was made from, and its gradients; nothing here is attached to a graph."""

    loss: Float[Tensor, ""]
    codes: Codes
    x_hat: Float[Tensor, "token d_model"]
    grad_W_enc: RowSums
    grad_b_enc: Float[Tensor, " latent"]
    grad_W_dec: RowSums
    grad_b_pre: Float[Tensor, " d_model"]

    @property
    def gradients(self) -> Weights:
        return Weights(self.grad_W_enc.whole(), self.grad_b_enc, self.grad_W_dec.whole(), self.grad_b_pre)


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

        grad_x_hat = error * (2 / tokens)
        grad_z = products.dots(grad_x_hat, weights.W_dec) + l1 / tokens
        grad_z = grad_z.masked_fill(codes.values <= 0, 0)  # fillers of TopK: ReLU is flat there
        grad_b_enc = products.totals(grad_z)
        return Objective(
            loss,
            codes,
            x_hat,
            grad_W_enc=RowSums(products, centred, grad_z),
            grad_b_enc=grad_b_enc,
            grad_W_dec=RowSums(products, grad_x_hat, codes.values),
            # b_pre is added to x_hat and subtracted from x; summing over tokens before W_enc spares a dense product.
            grad_b_pre=grad_x_hat.sum(0) - grad_b_enc @ weights.W_enc,
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
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        found, (scale,) = ctx.objective, grad_loss
        W_enc, W_dec = found.grad_W_enc.times(scale), found.grad_W_dec.times(scale)
        if ctx.take:
            ctx.take(ctx.parameters.W_enc, W_enc, False)
            ctx.take(ctx.parameters.W_dec, W_dec, True)
            gradients = None, scale * found.grad_b_enc, None, scale * found.grad_b_pre
        else:
            gradients = W_enc.whole(), scale * found.grad_b_enc, W_dec.whole(), scale * found.grad_b_pre
        wanted = zip(gradients, ctx.needs_input_grad[2:], strict=True)
        return None, None, *(gradient if needed else None for gradient, needed in wanted)


def differentiable_loss(objective: Objective, parameters: Weights, take: Take | None = None) -> Float[Tensor, ""]:
    """`objective.loss`, attached to `parameters`, so that `.backward()`, clipping, DDP and any optimizer work.

    With `take` backward gives the matrices' gradients to it, not yet summed, in place of their `.grad`.
    x gets no gradient, even if it asks for one: an SAE is trained on activations, not through them.
    """
    return _Loss.apply(objective, take, *parameters)


COEFFICIENT = 1 / 32  # alpha of appendix A.2
Average = Callable[[Tensor], Tensor]  # of a tensor of any shape over the ranks of a job


def alone(value: Tensor) -> Tensor:
    """The average over one rank."""
    return value


def aux_k_loss(
    x: Float[Tensor, "token d_model"],
    x_hat: Float[Tensor, "token d_model"],
    weights: Weights,
    dead: Bool[Tensor, " latent"],
    aux_k: int,
    coefficient: float = COEFFICIENT,
    average: Average = alone,
) -> Float[Tensor, ""]:
    """`coefficient` times the share of the residual's variance that the best dead latents leave unexplained.

    The residual e = x - x_hat is a constant; the `aux_k` dead latents with the largest activations (all of them
    if fewer are dead) try to decode it, without b_pre. Gradients reach the dead latents' rows only.
    `average` over ranks: the variance is that of the global batch, so that the ranks' losses average to its loss.
    0 when nothing is dead, and when the residual does not vary (one token, perfect reconstruction).
    """
    candidates = dead.nonzero().squeeze(1)
    if len(candidates) == 0:
        return x.new_zeros(())
    centred = x - weights.b_pre.detach()
    dense = pre_activations(centred, weights.W_enc[candidates], weights.b_enc[candidates])
    codes: Codes = top_k(dense, min(aux_k, len(candidates)))
    with torch.autocast(x.device.type, enabled=False):
        residual = (x - x_hat).detach()
        decoded = weighted_sums(weights.W_dec[candidates], codes.indices, codes.offsets, codes.values)
        unexplained = (residual - decoded).square().sum(1).sum()
        variance = average((residual - average(residual.mean(0))).square().sum(1).sum())
        return coefficient * unexplained / variance.masked_fill(variance == 0, torch.inf)
