"""TopK selection as one Triton kernel, in the two stages of bisae.sae.encoder.

A program reads a row once for the maxima of its groups; of the k best groups it reads the members again. A value and
its column are sorted as one integer, so of equal values of a group the first is kept, and a run repeats bit by bit.
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

MOST = 2**12  # numbers a program sorts; more take minutes to compile, and PyTorch selects


def top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """As bisae.sae.encoder.top_k."""
    indices = largest(pre_activations.detach(), k)
    return Codes.fixed(pre_activations.gather(1, indices).relu(), indices, pre_activations.shape[1])


def largest(values: Float[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    """As bisae.sae.encoder.largest, by falling value; float64 is left to PyTorch."""
    tokens, latents = values.shape
    sorted_k = triton.next_power_of_2(max(k, 2))  # tl.topk finds no fewer
    # The stages sort `groups` and k * members numbers; next to equal at sqrt(k latents) groups.
    groups = max(sorted_k, 1 << round(math.log2(sorted_k * latents) / 2))
    members = triton.next_power_of_2(triton.cdiv(latents, groups))
    if values.dtype == torch.float64 or max(groups, sorted_k * members) > MOST:
        return encoder.largest(values, k)
    found = torch.empty(tokens, k, dtype=torch.int64, device=values.device)
    _largest[(tokens,)](values.contiguous(), found, latents, k, groups, members, sorted_k)
    return found


@triton.jit
@no_type_check
def _largest(values, found, latents, k, groups: tl.constexpr, members: tl.constexpr, sorted_k: tl.constexpr):
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
    tl.store(found + token * k + place, _columns(kept), mask=place < k)


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
