"""Which feature of one checkpoint is which of another, and since when a feature is there.

Co-activation on the same tokens is the primary match. Decoder cosine is beside it: SAEs of one sae.seed start from the
same decoder, so latents that never moved, as dead ones, have a high cosine that says nothing about the LM.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.sparse import csr_array
from torch import Tensor

from bisae.features.codes import Firings

BLOCK = 1024  # latents matched at a time; 128 MiB of cosines against 32 768


@torch.no_grad()
def decoder_matches(
    a: Float[Tensor, "latent d_model"], b: Float[Tensor, "other d_model"]
) -> tuple[Int64[np.ndarray, " latent"], Float32[np.ndarray, " latent"]]:
    """For each latent of `a` the latent of `b` with the nearest decoder direction, and their cosine."""
    norms, found = b.norm(dim=1), []
    for block in a.split(BLOCK):
        cosine, best = (block @ b.T).div_(norms).max(dim=1)
        found.append((best, cosine / block.norm(dim=1)))
    best, cosine = (torch.cat(part).cpu() for part in zip(*found, strict=True))
    return best.numpy(), cosine.float().numpy()


@torch.no_grad()
def nearest(
    W_dec: Float[Tensor, "latent d_model"], neighbours: int
) -> tuple[Int64[np.ndarray, "latent neighbour"], Float32[np.ndarray, "latent neighbour"]]:
    """The latents with the nearest decoder directions to each, itself left out, and their cosines, nearest first."""
    directions, found = torch.nn.functional.normalize(W_dec, dim=1), []
    for first, block in enumerate(directions.split(BLOCK)):
        cosine = block @ directions.T
        cosine[torch.arange(len(block)), first * BLOCK + torch.arange(len(block))] = -torch.inf
        found.append(cosine.topk(min(neighbours, len(W_dec) - 1), dim=1))
    cosine, near = (torch.cat(part).cpu() for part in zip(*found, strict=True))
    return near.numpy(), cosine.float().numpy()


@torch.no_grad()
def decoder_cosine(
    a: Float[Tensor, "latent d_model"], b: Float[Tensor, "other d_model"], pairs: Int64[np.ndarray, " latent"]
) -> Float32[np.ndarray, " latent"]:
    """Cosine of each latent's decoder direction with that of `pairs[latent]` in `b`; NaN where that is -1."""
    cosine = torch.cosine_similarity(a, b[torch.from_numpy(pairs)], dim=1).cpu().float().numpy()
    return np.where(pairs < 0, np.float32(np.nan), cosine)


def coactivation_matches(
    a: Firings, b: Firings, tokens: int
) -> tuple[Int64[np.ndarray, " latent"], Float64[np.ndarray, " latent"]]:
    """For each latent of `a` the one of `b` that fires on most of the same tokens, and |both| / |either|.

    (-1, 0.0) where none of `b` fires on a token of it. Equals: the lowest number. Both on the same text.
    """
    left, right = _fires(a, tokens), _fires(b, tokens).T.tocsr()
    firings, others = np.diff(a.offsets), np.diff(b.offsets)
    best, jaccard = np.empty(a.latents, dtype=np.int64), np.empty(a.latents)
    for first in range(0, a.latents, BLOCK):
        block = slice(first, first + BLOCK)
        both = left[block] @ right
        either = np.repeat(firings[block], np.diff(both.indptr)) + others[both.indices] - both.data
        overlap = csr_array((both.data / either, both.indices, both.indptr), both.shape)
        jaccard[block] = overlap.max(axis=1).toarray()
        best[block] = np.where(jaccard[block] > 0, overlap.argmax(axis=1) + b.first, -1)
    return best, jaccard


def coactivation_null(a: Firings, b: Firings, tokens: int) -> Float64[np.ndarray, " latent"]:
    """Best co-activation by chance: the firings of `b` moved on by half the text, onto other documents.

    A lower bound for latents tied to a position in the sequence or, where the text's halves differ in it, a language.
    """
    return coactivation_matches(a, replace(b, rows=(b.rows + tokens // 2) % tokens), tokens)[1]


def _fires(firings: Firings, tokens: int) -> csr_array:
    """[latent, token]: 1 where it fires."""
    ones = np.ones(len(firings.rows), dtype=np.int32)
    return csr_array((ones, firings.rows, firings.offsets), shape=(firings.latents, tokens))


def appears(
    steps: Int64[np.ndarray, " step"], coactivation: Float64[np.ndarray, "step feature"], least: float
) -> Float64[np.ndarray, " feature"]:
    """Step from which on a final feature's best match co-activates at `least` at every later step; NaN: never.

    `steps` ascend and end before the final checkpoint; `coactivation` is of each final feature's best match at each.
    """
    holds = np.logical_and.accumulate((coactivation >= least)[::-1])[::-1]
    return np.append(steps, np.nan)[len(steps) - holds.sum(0)]
