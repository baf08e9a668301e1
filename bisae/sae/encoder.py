"""Encoding: the dense product with W_enc, the selection of latents, and the sparse codes that result."""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from bisae.sae.kernels.dense import product

DENSE = 2**25  # largest number of pre-activations to hold at once: 128 MiB in float32


class Weights(NamedTuple):
    """The parameters of one SAE, or their gradients.

    Both matrices are stored latent-major, so that everything sparse touches whole contiguous rows:
    row i of `W_enc` is the direction latent i reads, row i of `W_dec` the direction it writes.
    """

    W_enc: Float[Tensor, "latent d_model"]
    b_enc: Float[Tensor, " latent"]
    W_dec: Float[Tensor, "latent d_model"]
    b_pre: Float[Tensor, " d_model"]


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of a batch of tokens, without their zeros.

    Entries `offsets[t]:offsets[t + 1]` belong to token t: latent `indices[e]` has activation `values[e] >= 0`.
    A latent occurs at most once per token. TopK keeps k entries per token even where fewer are positive;
    such a filler has value 0 and does not count as firing.
    """

    values: Float[Tensor, " entry"]
    indices: Int[Tensor, " entry"]  # int32 or int64
    offsets: Int[Tensor, " token_and_one"]
    latents: int
    per_token: int | None = None  # entries of every token, if known to be the same for all

    @classmethod
    def fixed(cls, values: Float[Tensor, "token k"], indices: Int[Tensor, "token k"], latents: int) -> "Codes":
        """Codes with k entries on every token."""
        tokens, k = values.shape
        offsets = torch.arange(tokens + 1, dtype=indices.dtype, device=indices.device) * k
        return cls(values.reshape(-1), indices.reshape(-1), offsets, latents, per_token=k)

    @classmethod
    def where(cls, kept: Bool[Tensor, "token latent"], dense: Float[Tensor, "token latent"]) -> "Codes":
        """The entries of a dense code where `kept` is true, in the order of tokens."""
        return cls.at(_positions(kept.flatten()), dense)

    @classmethod
    def at(cls, positions: Int64[Tensor, " entry"], dense: Float[Tensor, "token latent"]) -> "Codes":
        """The entries of a dense code at these ascending positions in it, flattened."""
        tokens, latents = dense.shape
        starts = latents * torch.arange(tokens + 1, device=dense.device)
        values, indices = dense.flatten()[positions], positions % max(1, latents)
        return cls(values, indices, torch.searchsorted(positions, starts), latents)

    @classmethod
    def positive(cls, dense: Float[Tensor, "token latent"]) -> "Codes":
        """The positive entries of a dense code: ReLU, and the removal of zeros."""
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
        # Without the size, PyTorch would wait for the GPU to know it.
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
        """The codes as a matrix with all their zeros. Nothing else turns codes into a dense matrix."""
        dense = self.values.new_zeros(self.tokens, self.latents)
        dense[self.token_of_entry().long(), self.indices.long()] = self.values
        return dense


def _positions(kept: Bool[Tensor, " entry"]) -> Int64[Tensor, " true"]:
    """Where `kept` is true, ascending. On a CPU eight entries are looked at as one first: few codes are kept."""
    if kept.device.type == "cpu" and len(kept) % 8 == kept.storage_offset() % 8 == 0:
        eights = kept.view(torch.int64).numpy()
        some = np.flatnonzero(eights)
        if 4 * len(some) < len(eights):
            row, column = np.nonzero(eights[some].view(np.bool_).reshape(-1, 8))
            return torch.from_numpy(8 * some[row] + column)
    return kept.nonzero().squeeze(1)


@torch.no_grad()
def normalize_rows(directions: Float[Tensor, "latent d_model"]) -> None:
    """Divide every row by (its L2 norm + machine epsilon), in place."""
    norm = torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    directions.div_(norm + torch.finfo(norm.dtype).eps)


class _Scratch(threading.local):
    def __init__(self) -> None:
        self.memory: dict[torch.dtype, Tensor] = {}


_scratch = _Scratch()


def scratch(rows: int, columns: int, like: Tensor) -> Tensor:
    """An uninitialised matrix in the dtype and on the device of `like`, valid until this thread's next call.

    On a CPU each thread keeps the memory of its largest call, since allocating it anew is slow. On a GPU PyTorch
    does the same by itself.
    """
    if like.device.type != "cpu":
        return like.new_empty(rows, columns)
    memory = _scratch.memory
    if like.dtype not in memory or len(memory[like.dtype]) < rows * columns:
        memory.pop(like.dtype, None)
        with torch.inference_mode(False):  # else training could not write to memory that validation allocated
            memory[like.dtype] = torch.empty(rows * columns, dtype=like.dtype)
    return memory[like.dtype][: rows * columns].view(rows, columns)


def pre_activations(
    centred: Float[Tensor, "token d_model"],
    W_enc: Float[Tensor, "latent d_model"],
    b_enc: Float[Tensor, " latent"],
    out: Float[Tensor, "token latent"] | None = None,
) -> Float[Tensor, "token latent"]:
    """`W_enc centred + b_enc` in the dtype of `centred`; under autocast only the product has the lower precision."""
    device = centred.device.type
    if not torch.is_autocast_enabled(device):
        return F.linear(centred, W_enc, b_enc) if out is None else product(centred, W_enc, b_enc, out)
    low = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return torch.add(F.linear(centred.to(low), W_enc.to(low)), b_enc, out=out)


@torch.no_grad()
def encode(centred: Float[Tensor, "token d_model"], weights: Weights, select: Callable[[Tensor], Codes]) -> Codes:
    """Select codes from the pre-activations, without keeping the pre-activations.

    Args:
        centred: unit-norm inputs minus b_pre.
        weights: of the SAE; only the encoder's are used.
        select: keeps some entries of a pre-activation matrix "token latent".
    """
    out = scratch(len(centred), len(weights.W_enc), like=centred)
    return select(pre_activations(centred, weights.W_enc, weights.b_enc, out))


# With fewer latents in a group than this, two-stage selection is no quicker than selection in one stage.
SMALLEST_GROUP = 4
NUMPY = (torch.float32, torch.float64)  # the dtypes that numpy has too


def top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """TopK(ReLU(pre-activations)), Gao et al. 2024, section 2.3, with the ReLU of the llm-jp-sae code.

    ReLU does not change the order, so it is applied after the selection, to k entries instead of all. Where fewer
    than k are positive, the others become entries of value 0. If several entries tie for the k-th place, it is not
    defined which is kept.

    Returns:
        Codes with exactly k entries on every token.
    """
    indices = largest(pre_activations.detach(), k)
    return Codes.fixed(pre_activations.gather(1, indices).relu(), indices, pre_activations.shape[1])


def largest(values: Shaped[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    """The columns of each row's k largest values, in no order; NaN counts as largest.

    On a CPU latents are split into groups, and selection has two stages: first the k groups with the largest maxima,
    then the k largest values in those groups. No other group can hold one of the k largest values.
    """
    tokens, latents = values.shape
    # At sqrt(k latents) groups both stages read as much; twice as many are quicker, since the second also gathers.
    groups = 1 << round(math.log2(2 * math.sqrt(k * latents)))
    members = latents // groups
    if values.device.type != "cpu" or members < SMALLEST_GROUP:
        return _largest(values, k)
    strided = values[:, : members * groups].view(tokens, members, groups)  # latent i is in group i modulo `groups`
    chosen = _largest(strided.amax(1), k)
    candidates = (chosen[:, None] + groups * torch.arange(members)[:, None]).flatten(1)
    if latents % groups:  # the latents left over after equal groups: always candidates
        candidates = torch.cat([candidates, torch.arange(members * groups, latents).expand(tokens, -1)], 1)
    return candidates.gather(1, _largest(values.gather(1, candidates), k))


def _largest(values: Shaped[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    columns = values.shape[1]
    if values.device.type == "cpu" and values.dtype == torch.int16 and 0 < k < columns <= 2**16:
        # Value and column in one int32: numpy has no quick selection of columns by int16, but one of int32 values.
        keys = values.int()
        keys <<= 16
        keys |= torch.arange(columns, dtype=torch.int32)
        keys.numpy().partition(columns - k, axis=1)
        return (keys[:, -k:] & 0xFFFF).long()
    if values.device.type == "cpu" and values.dtype in NUMPY and 0 < k < values.shape[1]:
        # numpy selects with AVX-512 where the CPU has it: on rows of 1000 values three times as fast as PyTorch.
        return torch.from_numpy(np.argpartition(values.numpy(), -k, axis=1)[:, -k:])
    return values.topk(k, dim=1, sorted=False)[1]


def positive(pre_activations: Float[Tensor, "token latent"]) -> Codes:
    """The codes of a ReLU SAE: all positive pre-activations."""
    return Codes.positive(pre_activations)
