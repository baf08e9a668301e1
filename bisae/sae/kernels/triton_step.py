"""What is fused of a training step: decoding with the loss and the gradient of the activations, Adam with its gradient.

One program computes one token's or one latent's row, as a whole and in a fixed order, without atomic additions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from bisae.sae.encoder import Codes, Weights
from bisae.sae.kernels.triton_products import PART, TritonProducts, other_sums

WIDEST = 8192  # d_model that a program holds as a whole


class Decoded(NamedTuple):
    """The reconstruction of each token, its squared error, and the gradients of the mean error."""

    x_hat: Float[Tensor, "token d_model"]
    errors: Float[Tensor, " token"]
    grad_x_hat: Float[Tensor, "token d_model"]
    grad_z: Float[Tensor, " entry"]  # 0 for entries of value 0


def decode(x: Float[Tensor, "token d_model"], codes: Codes, weights: Weights) -> Decoded | None:
    """Decode, and differentiate the mean over tokens of |x - x_hat|^2; None where the kernel is not made for it."""
    tokens, d_model = x.shape
    k = codes.per_token
    if k is None or d_model > WIDEST:
        return None
    found = Decoded(torch.empty_like(x), x.new_empty(tokens), torch.empty_like(x), torch.empty_like(codes.values))
    given = x.contiguous(), weights.W_dec, weights.b_pre, codes.values, codes.indices
    sizes = d_model, k, triton.next_power_of_2(d_model)
    _decode[(tokens,)](*given, *found, 2 / tokens, *sizes, num_warps=_warps(d_model))
    return found


def adam(
    matrix: Float[Tensor, "latent d_model"],
    state: Mapping[str, Tensor],
    products: TritonProducts,
    rows: Float[Tensor, "token d_model"],
    weights: Float[Tensor, " entry"],
    settings: Mapping[str, Any],
    unit_rows: bool,
) -> bool:
    """One step of Adam on `matrix`, in place, with the gradient `products.sums(rows, weights)`, which is never made.

    Args:
        matrix: the parameter, contiguous, in float32.
        state: of torch.optim.Adam: `step`, which counts this step already, `exp_avg`, `exp_avg_sq`.
        products: of the codes.
        rows: of the tokens.
        weights: of the entries, by token.
        settings: `lr`, `beta1`, `beta2`, `eps`, `weight_decay`, `maximize`, as of torch.optim.Adam.
        unit_rows: give every row norm 1 after the step.

    Returns:
        False where the kernel is not made for it, and nothing is done.
    """
    latents, d_model = matrix.shape
    plain = matrix.dtype == torch.float32 and matrix.is_contiguous() and d_model <= WIDEST
    if not plain or settings["weight_decay"] or settings["maximize"]:
        return False
    beta1, beta2, step = settings["beta1"], settings["beta2"], state["step"].double()
    # In float64, since 1 - beta^step loses digits; on the device, so that the CPU need not wait.
    rate = (settings["lr"] / (1 - beta1**step)).float()
    spread = (1 / (1 - beta2**step).sqrt()).float()
    weights = weights[products.order]
    other = other_sums(rows, products, weights)
    given = rows.contiguous(), products.token_by_latent, products.latent_offsets, weights, products.cuts.before, other
    updated = matrix, state["exp_avg"], state["exp_avg_sq"]
    numbers = beta1, 1 - beta1, beta2, 1 - beta2, settings["eps"], torch.finfo(torch.float32).eps
    sizes = d_model, PART, triton.next_power_of_2(d_model), unit_rows
    _adam[(latents,)](*given, *updated, rate, spread, *numbers, *sizes, num_warps=_warps(d_model))
    return True


def _warps(d_model: int) -> int:
    return min(16, max(1, triton.next_power_of_2(d_model) // 256))


@triton.jit
@no_type_check
def _decode(
    x, directions, b_pre, values, indices, x_hat, errors, grad_x_hat, grad_z, scale, d_model, k, width: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, width)
    there = column < d_model
    total = tl.load(b_pre + column, mask=there, other=0)
    for entry in range(0, k):
        value = tl.load(values + token * k + entry)
        row = directions + tl.load(indices + token * k + entry).to(tl.int64) * d_model
        total += value * tl.load(row + column, mask=there, other=0)
    error = total - tl.load(x + token * d_model + column, mask=there, other=0)
    gradient = error * scale
    tl.store(x_hat + token * d_model + column, total, mask=there)
    tl.store(errors + token, tl.sum(error * error, 0))
    tl.store(grad_x_hat + token * d_model + column, gradient, mask=there)
    for entry in range(0, k):
        row = directions + tl.load(indices + token * k + entry).to(tl.int64) * d_model
        product = tl.sum(gradient * tl.load(row + column, mask=there, other=0), 0)
        positive = tl.load(values + token * k + entry) > 0
        tl.store(grad_z + token * k + entry, tl.where(positive, product, 0))


@triton.jit
@no_type_check
def _adam(
    rows, tokens, offsets, weights, before, other, matrix, average, square, rate, spread,
    beta1, rest1, beta2, rest2, eps, tiny, d_model, part: tl.constexpr, width: tl.constexpr, unit_rows: tl.constexpr,
):  # fmt: skip
    latent = tl.program_id(0)
    column = tl.arange(0, width)
    there = column < d_model
    start = tl.load(offsets + latent)
    stop = tl.minimum(tl.load(offsets + latent + 1), start + part)
    gradient = tl.zeros((width,), tl.float32)
    for entry in range(start, stop):
        row = rows + tl.load(tokens + entry).to(tl.int64) * d_model
        gradient += tl.load(weights + entry) * tl.load(row + column, mask=there, other=0)
    first = tl.load(before + latent)
    other += first.to(tl.int64) * d_model
    for _ in range(first, tl.load(before + latent + 1)):
        gradient += tl.load(other + column, mask=there, other=0)
        other += d_model
    at = latent.to(tl.int64) * d_model + column
    mean = beta1 * tl.load(average + at, mask=there, other=0) + rest1 * gradient
    power = beta2 * tl.load(square + at, mask=there, other=0) + rest2 * gradient * gradient
    tl.store(average + at, mean, mask=there)
    tl.store(square + at, power, mask=there)
    step = tl.load(rate) * mean / (tl.sqrt(power) * tl.load(spread) + eps)
    moved = tl.load(matrix + at, mask=there, other=0) - tl.where(there, step, 0)
    if unit_rows:
        moved = moved / (tl.sqrt(tl.sum(moved * moved, 0)) + tiny)
    tl.store(matrix + at, moved, mask=there)
