"""The sparse products of a training step, as Triton kernels.

One program computes one sum, in a fixed order, without atomic additions. The entries of a latent that fires on many
tokens are split into parts of equal size, so that no program has much more work than others; a second kernel adds them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from bisae.sae.encoder import Codes
from bisae.sae.kernels.products import SparseProducts

PART = 128  # entries that a program sums; this and the next two sizes are guesses, not measured
TILE = 2048  # numbers that a program loads at once
WIDTH = 512  # of these, at most so many from one row


class Cuts(NamedTuple):
    """The split of bags (the entries of one sum) into parts.

    Every bag has a first part. The other parts of all bags are numbered from 0. The tensors have room for the largest
    possible number of other parts, so that the CPU need not wait for the GPU to count them.
    """

    before: Int[Tensor, " bag_and_one"]  # number of other parts before those of each bag
    bag: Int[Tensor, " other"]  # the bag of each other part; unused room holds the number of bags


def cut(offsets: Int[Tensor, " bag_and_one"], entries: int) -> Cuts:
    """Split each bag into parts of PART entries."""
    before = torch.zeros_like(offsets)
    torch.cumsum(((offsets.diff() - 1) // PART).clamp_min(0), 0, out=before[1:])
    others = torch.arange(entries // PART, dtype=before.dtype, device=before.device)
    return Cuts(before, torch.searchsorted(before[1:].contiguous(), others, right=True, out_int32=True))


def weighted_sums(
    rows: Float[Tensor, "row d_model"],
    indices: Int[Tensor, " entry"],
    offsets: Int[Tensor, " bag_and_one"],
    weights: Float[Tensor, " entry"],
    cuts: Cuts | None = None,
) -> Float[Tensor, "bag d_model"]:
    """`bisae.sae.kernels.products.weighted_sums` without gradients; with `cuts`, part by part."""
    bags, d_model = len(offsets) - 1, rows.shape[1]
    before, bag = cuts or (None, None)
    others = 0 if bag is None else len(bag)
    out, other = rows.new_empty(bags, d_model), rows.new_empty(others, d_model)
    width, many = tile(d_model)
    grid = bags + others, triton.cdiv(d_model, width)
    size = PART if cuts else 0
    given = rows.contiguous(), indices, offsets, weights, before, bag, out, other
    _sums[grid](*given, bags, bags, d_model, size, many, width)
    if others:
        _add_others[others, grid[1]](before, bag, out, other, bags, d_model, many, width)
    return out


def other_sums(
    rows: Float[Tensor, "token d_model"], products: "TritonProducts", weights: Float[Tensor, " entry"]
) -> Float[Tensor, "other d_model"]:
    """The sums of all parts but the first of each latent; `weights` are ordered by latent."""
    before, bag = products.cuts
    out, d_model = rows.new_empty(len(bag), rows.shape[1]), rows.shape[1]
    width, many = tile(d_model)
    if len(bag):
        grid = len(bag), triton.cdiv(d_model, width)
        entries = products.token_by_latent, products.latent_offsets, weights
        # No bags before the other parts: its programs are those that `weighted_sums` has after them.
        _sums[grid](rows.contiguous(), *entries, before, bag, out, out, 0, len(before) - 1, d_model, PART, many, width)
    return out


def tile(d_model: int) -> tuple[int, int]:
    """The (columns, rows) that a program loads at once."""
    width = min(triton.next_power_of_2(d_model), WIDTH)
    return width, min(TILE // width, PART)


class TritonProducts(SparseProducts):
    """SparseProducts, for a GPU."""

    def __init__(self, codes: Codes) -> None:
        super().__init__(codes)
        self.cuts = cut(self.latent_offsets, len(codes.values))

    def decode(self, directions: Float[Tensor, "latent d_model"]) -> Float[Tensor, "token d_model"]:
        return weighted_sums(directions, self.codes.indices, self.codes.offsets, self.codes.values)

    def dots(
        self, rows: Float[Tensor, "token d_model"], directions: Float[Tensor, "latent d_model"]
    ) -> Float[Tensor, " entry"]:
        codes, d_model = self.codes, rows.shape[1]
        products = torch.empty_like(codes.values)
        width, many = tile(d_model)
        arguments = rows.contiguous(), directions.contiguous(), codes.indices, codes.offsets, products
        _dots[(codes.tokens,)](*arguments, d_model, many, width)
        return products

    def sums(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Float[Tensor, "latent d_model"]:
        return weighted_sums(rows, self.token_by_latent, self.latent_offsets, weights[self.order], self.cuts)

    def blocks(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Iterator[tuple[slice, Float[Tensor, "part d_model"]]]:
        """`sums`, all at once."""
        yield slice(0, self.codes.latents), self.sums(rows, weights)

    def adam(
        self,
        matrix: Float[Tensor, "latent d_model"],
        state: Mapping[str, Tensor],
        rows: Float[Tensor, "token d_model"],
        weights: Float[Tensor, " entry"],
        settings: Mapping[str, Any],
        unit_rows: bool,
    ) -> bool:
        """A step of Adam with the gradient `sums(rows, weights)`; see `bisae.sae.kernels.triton_step.adam`."""
        from bisae.sae.kernels.triton_step import adam

        return adam(matrix, state, self, rows, weights, settings, unit_rows)

    def totals(self, weights: Float[Tensor, " entry"]) -> Float[Tensor, " latent"]:
        return self.sums(weights.new_ones(self.codes.tokens, 1), weights).squeeze(1)


@triton.jit
@no_type_check
def _sums(
    rows, indices, offsets, weights, before, bag_of, out, other, first_parts, bags, d_model,
    part: tl.constexpr, many: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    bag, skipped, out_row = program, 0, out + program.to(tl.int64) * d_model
    if part:
        number = program - first_parts
        if number >= 0:
            bag = tl.load(bag_of + number)
            if bag == bags:
                return
            skipped = (number - tl.load(before + bag) + 1) * part
            out_row = other + number.to(tl.int64) * d_model
    start, stop = tl.load(offsets + bag) + skipped, tl.load(offsets + bag + 1)
    if part:
        stop = tl.minimum(stop, start + part)
    column = tl.program_id(1) * width + tl.arange(0, width)
    total = tl.full((many, width), 0, rows.dtype.element_ty)
    for first in range(start, stop, many):
        entry = first + tl.arange(0, many)
        there = entry < stop
        weight = tl.load(weights + entry, mask=there, other=0)
        index = tl.load(indices + entry, mask=there, other=0)
        total += weight[:, None] * _rows(rows, index, there, column, d_model)
    tl.store(out_row + column, tl.sum(total, 0), mask=column < d_model)


@triton.jit
@no_type_check
def _add_others(before, bag_of, out, other, bags, d_model, many: tl.constexpr, width: tl.constexpr):
    start = tl.program_id(0)
    bag = tl.load(bag_of + start)
    if bag == bags:
        return
    if start != tl.load(before + bag):  # the program of a bag's first adds them all
        return
    stop = tl.load(before + bag + 1)
    column = tl.program_id(1) * width + tl.arange(0, width)
    total = tl.full((many, width), 0, out.dtype.element_ty)
    for first in range(start, stop, many):
        number = first + tl.arange(0, many)
        total += _rows(other, number, number < stop, column, d_model)
    out_row = out + bag.to(tl.int64) * d_model + column
    there = column < d_model
    tl.store(out_row, tl.load(out_row, mask=there) + tl.sum(total, 0), mask=there)


@triton.jit
@no_type_check
def _dots(rows, directions, indices, offsets, products, d_model, many: tl.constexpr, width: tl.constexpr):
    token = tl.program_id(0)
    start, stop = tl.load(offsets + token), tl.load(offsets + token + 1)
    row = rows + token.to(tl.int64) * d_model
    for first in range(start, stop, many):
        entry = first + tl.arange(0, many)
        there = entry < stop
        latent = tl.load(indices + entry, mask=there, other=0)
        total = tl.full((many, width), 0, rows.dtype.element_ty)
        for left in range(0, d_model, width):
            column = left + tl.arange(0, width)
            x = tl.load(row + column, mask=column < d_model, other=0)
            total += x[None, :] * _rows(directions, latent, there, column, d_model)
        tl.store(products + entry, tl.sum(total, 1), mask=there)


@triton.jit
@no_type_check
def _rows(rows, indices, there, column, d_model):
    at = rows + indices.to(tl.int64)[:, None] * d_model + column[None, :]
    return tl.load(at, mask=there[:, None] & (column < d_model)[None, :], other=0)
