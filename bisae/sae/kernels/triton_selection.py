"""TopK selection as one Triton kernel, in the same two stages as `bisae.sae.encoder.largest`.

A program reads a row to find the maximum of each group of latents, then reads the k best groups again. It sorts a value
and its column as one integer: of equal values in a group the first is kept, so that runs repeat bit by bit.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor

from bisae.sae import encoder
from bisae.sae.encoder import Codes

MOST = 2**12  # numbers that a program sorts; more take minutes to compile, so PyTorch selects then


def top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """The same as `bisae.sae.encoder.top_k`."""
    indices = largest(pre_activations.detach(), k)
    return Codes.fixed(pre_activations.gather(1, indices).relu(), indices, pre_activations.shape[1])


def largest(values: Float[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    """The same as `bisae.sae.encoder.largest`, in falling order; float64 is left to PyTorch."""
    tokens, latents = values.shape
    sorted_k = triton.next_power_of_2(max(k, 2))  # the least that tl.topk finds
    # The stages sort `groups` and k * members numbers; these are about equal with sqrt(k latents) groups.
    groups = max(sorted_k, 1 << round(math.log2(sorted_k * latents) / 2))
    members = triton.next_power_of_2(triton.cdiv(latents, groups))
    if values.dtype == torch.float64 or max(groups, sorted_k * members) > MOST:
        return encoder.largest(values, k)
    indices = torch.empty(tokens, k, dtype=torch.int64, device=values.device)
    _largest[(tokens,)](values.contiguous(), indices, latents, k, groups, members, sorted_k)
    return indices


@triton.jit
@no_type_check
def _largest(values, indices, latents, k, groups: tl.constexpr, members: tl.constexpr, sorted_k: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    values += token * latents
    group = tl.arange(0, groups)
    best = tl.full((groups,), -(2**31), tl.int32)
    for first in range(0, latents, groups):  # latent i is in group i modulo `groups`
        best = tl.maximum(best, _ordered(values, first + group, latents))
    chosen = _columns(tl.topk(_packed(best, group), sorted_k))
    columns = chosen[:, None] + groups * tl.arange(0, members)[None, :]
    columns = tl.reshape(columns, (sorted_k * members,))
    kept = tl.topk(_packed(_ordered(values, columns, latents), columns), sorted_k)
    place = tl.arange(0, sorted_k)
    tl.store(indices + token * k + place, _columns(kept), mask=place < k)


@triton.jit
@no_type_check
def _ordered(values, columns, latents):
    """int32 in the order of the values, NaN above all. Columns past the end are -inf, and lose by their number."""
    loaded = tl.load(values + columns, mask=columns < latents, other=float("-inf")).to(tl.float32)
    bits = loaded.to(tl.int32, bitcast=True)
    return tl.where(loaded != loaded, 2**31 - 1, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
@no_type_check
def _packed(ordered, columns):
    """int64: the value above, the column below, inverted so that the first of equals is the largest."""
    return (ordered.to(tl.int64) << 32) | (~columns).to(tl.uint32, bitcast=True).to(tl.int64)


@triton.jit
@no_type_check
def _columns(packed):
    return ~packed.to(tl.int32)
