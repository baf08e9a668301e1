"""TopK selection as one Triton kernel, in the same two stages as `bisae.sae.encoder.largest`, without sorting.

A program reads a row to find the maximum of each group of latents. The k-th largest maximum is found bit by bit, by
counting; then the k best groups are read again, and the k-th largest of their values is found in the same way. Of
equal values those of the first groups and columns are kept, so that runs repeat bit by bit.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from bisae.sae import encoder
from bisae.sae.encoder import Codes, Weights

MOST = 2**13  # numbers that a program counts at once; where there would be more, PyTorch selects
RUN = 16  # neighbouring latents that a group has at least, where it has so many: they are read together
DENSE = 2**29  # pre-activations held at once: 1 GiB in bf16


def top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """The same as `bisae.sae.encoder.top_k`."""
    indices = largest(pre_activations.detach(), k)
    return Codes.fixed(pre_activations.gather(1, indices).relu(), indices, pre_activations.shape[1])


def largest(values: Float[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    """The same as `bisae.sae.encoder.largest`; float64 is left to PyTorch."""
    found = _selected(values, None, k)
    return encoder.largest(values, k) if found is None else found[1]


@torch.no_grad()
def encode(centred: Float[Tensor, "token d_model"], weights: Weights, k: int) -> Codes:
    """`bisae.sae.encoder.encode` with `top_k`: the bias is added where the product is read.

    Under autocast the product is in its precision; no matrix "token latent" in float32 is then made.
    """
    device, W_enc = centred.device.type, weights.W_enc
    low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else centred.dtype
    right, parts = W_enc.to(low).T, []
    with torch.autocast(device, enabled=False):
        for some in centred.split(max(1, DENSE // len(W_enc))):
            product = some.to(low) @ right
            found = _selected(product, weights.b_enc, k)
            if found is None:
                codes = encoder.top_k(product + weights.b_enc, k)
                found = codes.as_fixed()
            parts.append(found)
    values, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Codes.fixed(values, indices, len(W_enc))


def _selected(
    product: Float[Tensor, "token latent"], bias: Float[Tensor, " latent"] | None, k: int
) -> tuple[Float[Tensor, "token k"], Int64[Tensor, "token k"]] | None:
    """(positive parts of the k largest `product + bias`, their columns); None where the kernel is not made for them."""
    tokens, latents = product.shape
    sorted_k = triton.next_power_of_2(max(k, 2))
    # The stages count `groups` and k * members numbers; these are about equal with sqrt(k latents) groups.
    groups = max(sorted_k, 1 << round(math.log2(sorted_k * latents) / 2))
    members = triton.next_power_of_2(triton.cdiv(latents, groups))
    if product.dtype == torch.float64 or max(groups, sorted_k * members) > MOST:
        return None
    indices = torch.empty(tokens, k, dtype=torch.int64, device=product.device)
    values = torch.empty(tokens, k, dtype=product.dtype if bias is None else bias.dtype, device=product.device)
    sizes = latents, k, groups, members, min(members, RUN), sorted_k
    _select[(tokens,)](product.contiguous(), bias, values, indices, *sizes)
    return values, indices


@triton.jit
@no_type_check
def _select(
    product, bias, values, indices, latents, k,
    groups: tl.constexpr, members: tl.constexpr, run: tl.constexpr, sorted_k: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    product += token * latents
    indices += token * k
    # A group's members are runs of neighbours, one in each stretch of groups * run latents.
    group = tl.arange(0, groups)
    best = tl.zeros((groups,), tl.uint32)
    for first in range(0, groups * members, groups * run):
        columns = first + group[:, None] * run + tl.arange(0, run)[None, :]
        best = tl.maximum(best, tl.max(_ordered(_values(product, bias, columns, latents), columns, latents), 1))
    kept = _kept(best, k)
    tl.store(indices + tl.cumsum(kept.to(tl.int32), 0) - 1, group, mask=kept)  # for now: the groups
    tl.debug_barrier()  # every thread shall see them
    place = tl.arange(0, sorted_k)
    chosen = tl.load(indices + place, mask=place < k, other=0).to(tl.int32)
    tl.debug_barrier()  # before they are written over
    member = tl.arange(0, members)
    columns = (member // run * groups * run + member % run)[None, :] + chosen[:, None] * run
    columns = tl.where((place < k)[:, None], columns, latents)
    columns = tl.reshape(columns, (sorted_k * members,))
    found = _values(product, bias, columns, latents)
    kept = _kept(_ordered(found, columns, latents), k)
    at = tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(indices + at, columns.to(tl.int64), mask=kept)
    tl.store(values + token * k + at, tl.where(found < 0, 0, found), mask=kept)


@triton.jit
@no_type_check
def _values(product, bias, columns, latents):
    loaded = tl.load(product + columns, mask=columns < latents, other=0).to(tl.float32)
    if bias is not None:
        loaded += tl.load(bias + columns, mask=columns < latents, other=0).to(tl.float32)
    return loaded


@triton.jit
@no_type_check
def _ordered(values, columns, latents):
    """uint32 in the order of the values, NaN above all, columns past the end below all."""
    bits = values.to(tl.uint32, bitcast=True)
    ordered = tl.where(bits >> 31 == 1, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    ordered = tl.where(values != values, 0xFFFFFFFF, ordered).to(tl.uint32)
    return tl.where(columns < latents, ordered, 0).to(tl.uint32)


@triton.jit
@no_type_check
def _kept(ordered, k):
    """Which are the k largest; of those equal to the k-th the first."""
    threshold = tl.zeros((1,), tl.uint32)
    bit = tl.full((1,), 0x80000000, tl.uint32)
    for _ in range(32):
        higher = threshold | bit
        count = tl.sum((ordered >= higher).to(tl.int32), 0)
        threshold = tl.where(count >= k, higher, threshold)
        bit = bit >> 1
    above, equal = ordered > threshold, (ordered == threshold).to(tl.int32)
    missing = k - tl.sum(above.to(tl.int32), 0)
    return above | ((equal == 1) & (tl.cumsum(equal, 0) <= missing))
