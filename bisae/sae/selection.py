"""Which latents a token keeps: from dense pre-activations to sparse codes."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bisae.sae.codes import Codes

# A row is read once for the maxima of its groups; fewer latents a group than this, and reading it twice is as quick.
SMALLEST_GROUP = 4
NUMPY = (torch.float32, torch.float64, torch.int16)  # what numpy knows of what is selected


def top_k(pre_activations: Float[Tensor, "token latent"], k: int) -> Codes:
    """TopK(ReLU(pre-activations)), Gao et al. 2024, section 2.3, with the ReLU of the llm-jp-sae code.

    ReLU keeps the order, so it may as well come second, on k entries instead of all. Where fewer than k are
    positive the rest become entries of value 0. Which of several equal k-th entries is kept is not defined.
    """
    indices = largest(pre_activations.detach(), k)
    return Codes.fixed(pre_activations.gather(1, indices).relu(), indices, pre_activations.shape[1])


def largest(values: Shaped[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    """Where each row has its k largest values, in no order; NaN counts as largest.

    On a CPU in two stages: no value outside the k groups of latents with the largest maxima is among the k largest.
    """
    tokens, latents = values.shape
    # Both stages cost the same at about sqrt(k latents) groups, but only the second also has to gather.
    groups = 1 << round(math.log2(2 * math.sqrt(k * latents)))
    members = latents // groups
    if values.device.type != "cpu" or members < SMALLEST_GROUP:
        return _largest(values, k)
    strided = values[:, : members * groups].view(tokens, members, groups)  # latent i is in group i modulo `groups`
    chosen = _largest(strided.amax(1), k)
    candidates = (chosen[:, None] + groups * torch.arange(members)[:, None]).flatten(1)
    if latents % groups:  # the last ones are too few to be in every group
        candidates = torch.cat([candidates, torch.arange(members * groups, latents).expand(tokens, -1)], 1)
    return candidates.gather(1, _largest(values.gather(1, candidates), k))


def _largest(values: Shaped[Tensor, "token latent"], k: int) -> Int64[Tensor, "token k"]:
    if values.device.type == "cpu" and values.dtype in NUMPY and 0 < k < values.shape[1]:
        # numpy selects with AVX-512 where there is: three times as fast as PyTorch on rows of a thousand.
        return torch.from_numpy(np.argpartition(values.numpy(), -k, axis=1)[:, -k:])
    return values.topk(k, dim=1, sorted=False)[1]


def positive(pre_activations: Float[Tensor, "token latent"]) -> Codes:
    """ReLU(pre-activations)."""
    return Codes.positive(pre_activations)
