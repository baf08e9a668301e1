"""Sparse codes: which latents fire on which tokens, and how strongly."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of a batch of tokens, without their zeros.

    Entries `offsets[t]:offsets[t + 1]` belong to token t: latent `indices[e]` has activation `values[e] >= 0`.
    A latent occurs at most once per token. TopK keeps k entries per token even where fewer are positive;
    an entry of value 0 is such a filler and no firing.
    """

    values: Float[Tensor, " entry"]
    indices: Int[Tensor, " entry"]  # int32 or int64
    offsets: Int[Tensor, " token_and_one"]
    latents: int
    per_token: int | None = None  # entries of every token, where `fixed` knows that they are equally many

    @classmethod
    def fixed(cls, values: Float[Tensor, "token k"], indices: Int[Tensor, "token k"], latents: int) -> "Codes":
        """Codes with k entries on every token."""
        tokens, k = values.shape
        offsets = torch.arange(tokens + 1, dtype=indices.dtype, device=indices.device) * k
        return cls(values.reshape(-1), indices.reshape(-1), offsets, latents, per_token=k)

    @classmethod
    def where(cls, kept: Bool[Tensor, "token latent"], dense: Float[Tensor, "token latent"]) -> "Codes":
        """The entries of a dense code that a mask names, in the order of tokens."""
        token, indices = kept.nonzero(as_tuple=True)
        offsets = torch.zeros(len(dense) + 1, dtype=torch.int64, device=dense.device)
        torch.cumsum(kept.sum(1), 0, out=offsets[1:])
        return cls(dense[token, indices], indices, offsets, dense.shape[1])

    @classmethod
    def positive(cls, dense: Float[Tensor, "token latent"]) -> "Codes":
        """The positive entries of a dense code, which is ReLU and the removal of zeros in one."""
        return cls.where(dense > 0, dense)

    @property
    def tokens(self) -> int:
        return len(self.offsets) - 1

    def as_fixed(self) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]:
        """`(values, indices)` as matrices.

        Raises:
            ValueError: tokens have different numbers of entries.
        """
        k = self.per_token
        if k is None:
            counts = self.offsets.diff().unique().tolist()
            if len(counts) > 1:
                raise ValueError(f"the codes are ragged: between {counts[0]} and {counts[-1]} entries a token")
            k = counts[0] if counts else 0
        return self.values.reshape(self.tokens, k), self.indices.reshape(self.tokens, k)

    def token_of_entry(self) -> Int[Tensor, " entry"]:
        """The token each entry belongs to."""
        token = torch.arange(self.tokens, dtype=self.indices.dtype, device=self.indices.device)
        # Naming the size spares a GPU from being waited for.
        return token.repeat_interleave(self.offsets.diff(), output_size=len(self.values))

    def l0(self) -> Int[Tensor, " token"]:
        """How many latents fire on each token."""
        counts = torch.zeros(self.tokens, dtype=torch.int64, device=self.values.device)
        return counts.index_add_(0, self.token_of_entry(), (self.values > 0).long())

    def fired(self) -> Bool[Tensor, " latent"]:
        """Which latents fire on any token of the batch."""
        counts = torch.zeros(self.latents, dtype=torch.int64, device=self.values.device)
        return counts.index_add_(0, self.indices, (self.values > 0).long()) > 0

    def dense(self) -> Float[Tensor, "token latent"]:
        """The codes with all their zeros: the one place where such a matrix is made from them."""
        dense = self.values.new_zeros(self.tokens, self.latents)
        dense[self.token_of_entry().long(), self.indices.long()] = self.values
        return dense
