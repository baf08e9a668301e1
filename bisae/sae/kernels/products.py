"""The three products of sparse codes with dense matrices that a training step needs.

z is the code as a (mostly zero) matrix "token latent"; `weights` may stand in place of its values:

| name     | product                         | use                         |
|----------|---------------------------------|-----------------------------|
| `decode` | z @ directions                  | x_hat                       |
| `dots`   | rows @ directions.T, where z is | gradient of the codes       |
| `sums`   | z.T @ rows                      | gradients of the weights    |

All are deterministic: every output row is one sum in a fixed order, without atomic additions. `blocks` gives the same
bits as `sums`, for a block of latents at a time.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from bisae.sae.encoder import Codes

# A sparse product is limited by memory, a dense one by arithmetic. On a CPU they cost the same when a tenth of the
# latents is kept. TopK keeps far fewer; ReLU keeps half of them at the start of training.
DENSE_FROM = 0.1
BLOCK = 2**19  # elements: 2 MiB of rows in float32, which stay in a CPU's cache with the optimizer's state


def weighted_sums(
    rows: Float[Tensor, "row d_model"],
    indices: Int[Tensor, " entry"],
    offsets: Int[Tensor, " bag_and_one"],
    weights: Float[Tensor, " entry"],
) -> Float[Tensor, "bag d_model"]:
    """Weighted sums of rows; each bag is one sum.

    No tensor of shape "entry d_model" is made. Differentiable in `rows` and `weights`.

    Returns:
        Row b is the sum of `weights[e] * rows[indices[e]]` over the entries `e` in `offsets[b]:offsets[b + 1]`.
    """
    offsets = offsets.to(indices.dtype)
    return F.embedding_bag(indices, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def dots(
    rows: Float[Tensor, "token d_model"], directions: Float[Tensor, "latent d_model"], codes: Codes
) -> Float[Tensor, " entry"]:
    """For each entry of `codes`, the dot product of its token's row and its latent's direction.

    No tensor of shape "entry d_model" is made.
    """
    if rows.device.type != "cpu":
        return chunked_dots(rows, directions, codes, 2**26)
    with warnings.catch_warnings():  # CSR tensors are "in beta state"
        warnings.simplefilter("ignore")
        where = torch.sparse_csr_tensor(
            codes.offsets, codes.indices, codes.values, (codes.tokens, codes.latents), check_invariants=False
        )
    return torch.sparse.sampled_addmm(where, rows, directions.T, beta=0.0).values()


def chunked_dots(
    rows: Float[Tensor, "token d_model"], directions: Float[Tensor, "latent d_model"], codes: Codes, most: int
) -> Float[Tensor, " entry"]:
    """`dots` for devices without a kernel for it, gathering at most `most` numbers at a time."""
    chunk = max(1, most // rows.shape[1])
    pairs = zip(codes.token_of_entry().split(chunk), codes.indices.split(chunk), strict=True)
    return torch.cat([(rows.index_select(0, t) * directions.index_select(0, i)).sum(1) for t, i in pairs])


class SparseProducts:
    """The products, computed entry by entry."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        # The transpose of the code, for all weight gradients: entries ordered by latent, then by token.
        # int32 sorts faster than int64, and the sums read half as much.
        by_latent, self.order = torch.sort(codes.indices.int(), stable=True)
        latents = torch.arange(codes.latents + 1, dtype=torch.int32, device=by_latent.device)
        self.latent_offsets = torch.searchsorted(by_latent, latents, out_int32=True)
        self.token_by_latent = codes.token_of_entry().int()[self.order]

    def decode(self, directions: Float[Tensor, "latent d_model"]) -> Float[Tensor, "token d_model"]:
        return weighted_sums(directions, self.codes.indices, self.codes.offsets, self.codes.values)

    def dots(
        self, rows: Float[Tensor, "token d_model"], directions: Float[Tensor, "latent d_model"]
    ) -> Float[Tensor, " entry"]:
        return dots(rows, directions, self.codes)

    def sums(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Float[Tensor, "latent d_model"]:
        return weighted_sums(rows, self.token_by_latent, self.latent_offsets, weights[self.order])

    def blocks(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Iterator[tuple[slice, Float[Tensor, "part d_model"]]]:
        """`sums`, as (latents, their rows), for a block of latents at a time."""
        size = max(1, BLOCK // rows.shape[1]) if rows.device.type == "cpu" else self.codes.latents
        if size >= self.codes.latents:  # offsets need not be known here, for which PyTorch would wait for a GPU
            yield slice(0, self.codes.latents), self.sums(rows, weights)
            return
        weights, offsets = weights[self.order], self.latent_offsets
        for first in range(0, self.codes.latents, size):
            block = slice(first, min(first + size, self.codes.latents))
            start, stop = int(offsets[block.start]), int(offsets[block.stop])
            entries = self.token_by_latent[start:stop]
            yield block, weighted_sums(rows, entries, offsets[first : block.stop + 1] - start, weights[start:stop])

    def totals(self, weights: Float[Tensor, " entry"]) -> Float[Tensor, " latent"]:
        """The sum of each latent's weights."""
        return torch.segment_reduce(weights[self.order], "sum", offsets=self.latent_offsets, initial=0)


class DenseProducts:
    """The same products by matrix multiplication, for codes with many entries."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes
        self.token = codes.token_of_entry().long()
        self.latent = codes.indices.long()

    def _dense(self, weights: Float[Tensor, " entry"]) -> Float[Tensor, "token latent"]:
        codes = self.codes
        return Codes(weights, codes.indices, codes.offsets, codes.latents).dense()

    def decode(self, directions: Float[Tensor, "latent d_model"]) -> Float[Tensor, "token d_model"]:
        return self.codes.dense() @ directions

    def dots(
        self, rows: Float[Tensor, "token d_model"], directions: Float[Tensor, "latent d_model"]
    ) -> Float[Tensor, " entry"]:
        return (rows @ directions.T)[self.token, self.latent]

    def sums(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Float[Tensor, "latent d_model"]:
        return self._dense(weights).T @ rows

    def blocks(
        self, rows: Float[Tensor, "token d_model"], weights: Float[Tensor, " entry"]
    ) -> Iterator[tuple[slice, Float[Tensor, "part d_model"]]]:
        """`sums`, in one block."""
        yield slice(0, self.codes.latents), self.sums(rows, weights)

    def totals(self, weights: Float[Tensor, " entry"]) -> Float[Tensor, " latent"]:
        return self._dense(weights).sum(0)


def products_of(codes: Codes) -> SparseProducts | DenseProducts:
    """The quicker of the two classes for these codes."""
    crowded = len(codes.values) >= DENSE_FROM * codes.tokens * codes.latents
    return DenseProducts(codes) if crowded else SparseProducts(codes)


class RowSums(NamedTuple):
    """The gradient of a matrix "latent d_model" before it is computed: for each latent a weighted sum of rows."""

    products: SparseProducts | DenseProducts
    rows: Float[Tensor, "token d_model"]
    weights: Float[Tensor, " entry"]

    def times(self, scale: Tensor) -> "RowSums":
        """The gradient of `scale` times the loss."""
        return self._replace(weights=self.weights * scale)

    def whole(self) -> Float[Tensor, "latent d_model"]:
        """The gradient."""
        return self.products.sums(self.rows, self.weights)

    def blocks(self) -> Iterator[tuple[slice, Float[Tensor, "part d_model"]]]:
        """`whole` as (latents, their rows), for a block of latents at a time."""
        return self.products.blocks(self.rows, self.weights)
