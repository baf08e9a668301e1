"""Lineage: which features of two checkpoints are the same, and since when a feature exists.

Features are matched by co-activation: they fire on the same tokens. The cosine of their decoder directions is reported
too, but does not match them: SAEs of one seed start from the same decoder, so that latents that were never trained,
such as dead ones, have a high cosine that says nothing about the LM.
"""

from collections.abc import Iterator
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
    """For each latent of `a`, the latent of `b` with the nearest decoder direction, and the cosine of the two."""
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
    """For each latent, the other latents with the nearest decoder directions, nearest first, and their cosines."""
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
    """The cosine of each latent's decoder direction with that of latent `pairs[latent]` of `b`; NaN if that is -1."""
    cosine = torch.cosine_similarity(a, b[torch.from_numpy(pairs)], dim=1).cpu().float().numpy()
    return np.where(pairs < 0, np.float32(np.nan), cosine)


def coactivation_matches(
    a: Firings, b: Firings, tokens: int
) -> tuple[Int64[np.ndarray, " latent"], Float64[np.ndarray, " latent"]]:
    """Match each latent of `a` with the latent of `b` that fires on most of the same tokens.

    Args:
        a: Firings of one SAE.
        b: Firings of another SAE on the same text.
        tokens: The number of tokens of the text.

    Returns:
        For each latent of `a` the matched latent, the lowest of several equal ones, and the co-activation: on how many
        tokens both fire, divided by on how many at least one fires. (-1, 0.0) if no latent of `b` fires on a token on
        which it fires.
    """
    best, jaccard = np.empty(a.latents, dtype=np.int64), np.empty(a.latents)
    for block, overlap in _overlaps(a, b, tokens):
        jaccard[block] = overlap.max(axis=1).toarray()
        best[block] = np.where(jaccard[block] > 0, overlap.argmax(axis=1) + b.first, -1)
    return best, jaccard


def coactivation_both_ways(
    a: Firings, b: Firings, tokens: int
) -> tuple[
    tuple[Int64[np.ndarray, " latent"], Float64[np.ndarray, " latent"]],
    tuple[Int64[np.ndarray, " other"], Float64[np.ndarray, " other"]],
]:
    """`coactivation_matches` of `a` in `b` and of `b` in `a`, bit for bit, from one product."""
    best, jaccard = np.empty(a.latents, dtype=np.int64), np.empty(a.latents)
    back, of_back = np.full(b.latents, -1, dtype=np.int64), np.zeros(b.latents)
    for block, overlap in _overlaps(a, b, tokens):
        jaccard[block] = overlap.max(axis=1).toarray()
        best[block] = np.where(jaccard[block] > 0, overlap.argmax(axis=1) + b.first, -1)
        columns = overlap.tocsc()
        most = columns.max(axis=0).toarray()
        more = most > of_back  # of equal ones an earlier block has the lowest
        back[more], of_back[more] = (columns.argmax(axis=0) + block.start + a.first)[more], most[more]
    return (best, jaccard), (back, of_back)


def _overlaps(a: Firings, b: Firings, tokens: int) -> Iterator[tuple[slice, csr_array]]:
    """The co-activations [latent of `a`, latent of `b`] that are not 0, a block of `a` after the other."""
    left, right = _fires(a, tokens), _fires(b, tokens).T.tocsr()
    firings, others = np.diff(a.offsets), np.diff(b.offsets)
    for first in range(0, a.latents, BLOCK):
        block = slice(first, first + BLOCK)
        both = left[block] @ right
        either = np.repeat(firings[block], np.diff(both.indptr)) + others[both.indices] - both.data
        yield block, csr_array((both.data / either, both.indices, both.indptr), both.shape)


def coactivation_null(a: Firings, b: Firings, tokens: int) -> Float64[np.ndarray, " latent"]:
    """Best co-activation by chance: the firings of `b` are shifted by half the text, onto other documents.

    It is a lower bound for latents that depend on the position in the sequence, or on the language if the two halves of
    the text differ in it.
    """
    return coactivation_matches(a, shifted(b, tokens), tokens)[1]


def shifted(firings: Firings, tokens: int) -> Firings:
    """The firings as if they were half the text later, from its end on at its beginning."""
    return replace(firings, rows=(firings.rows + tokens // 2) % tokens)


def coactivation_of_same(a: Firings, b: Firings, tokens: int) -> Float64[np.ndarray, " latent"]:
    """The co-activation of each latent of `a` with the latent of the same index in `b`; 0 where neither fires."""
    both = _fires(a, tokens).multiply(_fires(b, tokens)).sum(axis=1).astype(np.float64)
    either = np.diff(a.offsets) + np.diff(b.offsets) - both
    return np.divide(both, either, out=np.zeros(a.latents), where=either > 0)


def _fires(firings: Firings, tokens: int) -> csr_array:
    """A sparse matrix [latent, token]: 1 where the latent fires."""
    ones = np.ones(len(firings.rows), dtype=np.int32)
    return csr_array((ones, firings.rows, firings.offsets), shape=(firings.latents, tokens))


def appears(
    steps: Int64[np.ndarray, " step"], coactivation: Float64[np.ndarray, "step feature"], least: float
) -> Float64[np.ndarray, " feature"]:
    """The step since which each final feature exists: its best match co-activates at least `least` from there on.

    Args:
        steps: The steps before the final checkpoint, in ascending order.
        coactivation: The co-activation of each final feature with its best match at each of these steps.
        least: The least co-activation at which two features are the same.

    Returns:
        The step of each feature; NaN if it is below `least` at the last of `steps`.
    """
    holds = np.logical_and.accumulate((coactivation >= least)[::-1])[::-1]
    return np.append(steps, np.nan)[len(steps) - holds.sum(0)]
