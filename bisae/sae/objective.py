"""The training loss, and its gradients written out by hand.

    z     = select(W_enc (x - b_pre) + b_enc)          TopK: Gao et al. 2024, section 2.3; ReLU: section 2.2
    x_hat = W_dec^T z + b_pre                          (rows of W_dec are directions)
    loss  = mean over tokens of |x - x_hat|^2          the square summed over d_model
            + l1 * mean over tokens of |z|_1           ReLU-L1 only

x is the LM's activation divided by its L2 norm. Autograd would compute six dense products of the encoder's size. But
only the kept, positive activations have a gradient, so one dense product is enough, and everything else is a sum over
the entries of the codes. A small change of the weights does not change the selection, so the gradients are exact.

`grad_y` is the gradient of the loss with respect to y.
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

Encode = Callable[[Tensor, Weights], Codes]  # (centred inputs, weights) -> codes
Take = Callable[[Tensor, RowSums, bool], None]  # receives a matrix, its gradient, and whether its rows must have norm 1


class Objective(NamedTuple):
    """A loss, the codes and reconstruction it is computed from, and its gradients; all detached from autograd."""

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
    """The objective of any SAE whose `encoder` keeps some pre-activations unchanged and drops the others.

    Under autocast only the encoder's product has the lower precision.

    Args:
        x: unit-norm inputs.
        weights: of the SAE.
        encoder: gives the codes of x - b_pre.
        l1: weight of the mean L1 norm of the codes in the loss.
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
    """`sparse_objective` for codes that are computed already.

    Args:
        x: unit-norm inputs.
        centred: x - b_pre.
        codes: of `centred`.
        weights: of the SAE.
        l1: weight of the mean L1 norm of the codes in the loss.
        kind: the class that computes the sparse products; None: the quicker of SparseProducts and DenseProducts.
    """
    tokens = len(x)
    with torch.autocast(x.device.type, enabled=False):
        products = (kind or products_of)(codes)
        x_hat = products.decode(weights.W_dec) + weights.b_pre
        error = x_hat - x
        # Sum each row first: one sum over all elements would have an error of 1e-5 in float32.
        loss = error.square().sum(1).mean() + l1 * codes.values.sum() / tokens

        grad_x_hat = error * (2 / tokens)
        grad_z = products.dots(grad_x_hat, weights.W_dec) + l1 / tokens
        grad_z = grad_z.masked_fill(codes.values <= 0, 0)  # TopK's fillers: the gradient of ReLU is 0 there
        grad_b_enc = products.totals(grad_z)
        return Objective(
            loss,
            codes,
            x_hat,
            grad_W_enc=RowSums(products, centred, grad_z),
            grad_b_enc=grad_b_enc,
            grad_W_dec=RowSums(products, grad_x_hat, codes.values),
            # b_pre is added to x_hat and subtracted from x. Summing over tokens first saves a dense product with W_enc.
            grad_b_pre=grad_x_hat.sum(0) - grad_b_enc @ weights.W_enc,
        )


def topk_objective(x: Float[Tensor, "token d_model"], weights: Weights, k: int) -> Objective:
    """The objective of a TopK SAE, which has no sparsity penalty."""
    return sparse_objective(x, weights, partial(encode, select=partial(top_k, k=k)))


def relu_l1_objective(x: Float[Tensor, "token d_model"], weights: Weights, l1: float) -> Objective:
    """The objective of a ReLU SAE with `l1` times the mean L1 norm of the codes."""
    return sparse_objective(x, weights, partial(encode, select=positive), l1)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, objective: Objective, take: Take | None, *parameters: Tensor) -> Tensor:
        ctx.objective, ctx.take, ctx.parameters = objective, take, Weights(*parameters)
        return objective.loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        objective, (scale,) = ctx.objective, grad_loss
        needed = Weights(*ctx.needs_input_grad[2:])

        def of_matrix(name: str, gradient: RowSums, unit_rows: bool) -> Tensor | None:
            if not getattr(needed, name):  # a frozen one costs nothing
                return None
            if ctx.take:
                return ctx.take(getattr(ctx.parameters, name), gradient.times(scale), unit_rows)
            return gradient.times(scale).whole()

        W_enc = of_matrix("W_enc", objective.grad_W_enc, False)
        W_dec = of_matrix("W_dec", objective.grad_W_dec, True)
        b_enc = scale * objective.grad_b_enc if needed.b_enc else None
        return None, None, W_enc, b_enc, W_dec, scale * objective.grad_b_pre if needed.b_pre else None


def differentiable_loss(objective: Objective, parameters: Weights, take: Take | None = None) -> Float[Tensor, ""]:
    """`objective.loss` as a scalar in the autograd graph of `parameters`: `.backward()`, clipping and DDP work.

    x gets no gradient, even if it requires one: an SAE is trained on activations, not through them.

    Args:
        objective: the loss and its gradients.
        parameters: those of the SAE.
        take: called in backward with the gradients of W_enc and W_dec as sums of sparse codes that are not carried out
        yet (`RowSums`); their `.grad` stays unset.
    """
    return _Loss.apply(objective, take, *parameters)


COEFFICIENT = 1 / 32  # alpha of appendix A.2
Average = Callable[[Tensor], Tensor]  # the mean of a tensor of any shape over the ranks of a job


def alone(value: Tensor) -> Tensor:
    """The mean over one rank: the value itself."""
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
    """`coefficient` times the share of the residual's variance that the dead latents leave unexplained.

    On each token the `aux_k` dead latents with the largest activations (all, if fewer are dead) reconstruct the
    residual x - x_hat, without b_pre. The residual is a constant, so only the rows of dead latents get gradients.

    Args:
        x: unit-norm inputs.
        x_hat: their reconstruction.
        weights: of the SAE.
        dead: true for dead latents.
        aux_k: number of dead latents on a token.
        coefficient: weight of this loss.
        average: the mean over ranks, so that the variance is that of the whole batch and the mean of the ranks' losses
            is the loss of the whole batch.

    Returns:
        The loss; 0 if no latent is dead, or if the residual does not vary (one token, or a perfect reconstruction).
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
