"""Stability: which features of two SAEs that differ in their seed only are the same.

Latents are matched one to one by their decoder directions, so that the sum of cosines is largest (the Hungarian
method). A feature is found again where the cosine and the correlation of activations with its match are both high. The
mean cosine is PW-MCC (Song et al. 2025, arXiv 2505.20254).
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from bisae.features.codes import Firings

EXACT = 4096  # latents up to which all pairs are candidates: 64 MiB of cosines, 1.3 s
NEAR = 16  # else each latent's nearest ones, in both directions: sums of cosines are below the largest by under 1e-5
BLOCK = 1024


@torch.no_grad()
def one_to_one(
    a: Float[Tensor, "latent d_model"], b: Float[Tensor, "latent d_model"]
) -> tuple[Int64[np.ndarray, " latent"], Float32[np.ndarray, " latent"]]:
    """For each latent of `a` a latent of `b`, each taken once, and the cosine of their directions; one dense product.

    The sum of cosines is the largest there is with up to `EXACT` latents. With more, only the `NEAR` nearest latents of
    each latent, of either SAE, are candidates first; what is left without a match is matched again.
    """
    a, b = (torch.nn.functional.normalize(rows.float(), dim=1) for rows in (a, b))
    if len(a) <= EXACT:
        from scipy.optimize import linear_sum_assignment  # slow to import

        match = linear_sum_assignment((a @ b.T).cpu().numpy(), maximize=True)[1].astype(np.int64)
    else:
        match = _among_near(a, b)
        left = np.flatnonzero(match < 0)
        if len(left):
            free = np.setdiff1d(np.arange(len(b)), match)
            match[left] = free[one_to_one(a[torch.from_numpy(left)], b[torch.from_numpy(free)])[0]]
    return match, (a * b[torch.from_numpy(match)]).sum(1).cpu().numpy()


def _among_near(a: Float[Tensor, "latent d_model"], b: Float[Tensor, "latent d_model"]) -> Int64[np.ndarray, " latent"]:
    """The match of each latent among its candidates, -1 where those are taken."""
    latents, found = len(a), []
    onto, of = torch.full((NEAR, latents), -torch.inf), torch.zeros(NEAR, latents, dtype=torch.int64)
    for first in range(0, latents, BLOCK):
        cosine = (a[first : first + BLOCK] @ b.T).cpu()
        found.append(cosine.topk(NEAR, dim=1))
        best, row = cosine.topk(min(NEAR, len(cosine)), dim=0)
        onto, kept = torch.cat([onto, best]).topk(NEAR, dim=0)
        of = torch.cat([of, row + first]).gather(0, kept)
    near, nearest = (torch.cat(part) for part in zip(*found, strict=True))
    everyone = np.arange(latents)
    # A column of its own for each latent, dearer than all others: so that there is a full matching.
    rows = np.concatenate([np.repeat(everyone, NEAR), of.numpy().ravel(), everyone])
    columns = np.concatenate([nearest.numpy().ravel(), np.tile(everyone, NEAR), latents + everyone])
    cost = np.concatenate([2 - near.numpy().ravel(), 2 - onto.numpy().ravel(), np.full(latents, 4.0)])
    _, once = np.unique(rows * (2 * latents) + columns, return_index=True)
    graph = csr_array((cost[once], (rows[once], columns[once])), shape=(latents, 2 * latents))
    match = min_weight_full_bipartite_matching(graph)[1].astype(np.int64)
    return np.where(match < latents, match, -1)


@lru_cache
def cosine_by_chance(latents: int, d_model: int, seed: int = 0) -> float:
    """The mean cosine of matched latents of two random decoders."""
    a, b = torch.randn(2, latents, d_model, generator=torch.Generator().manual_seed(seed))
    return float(one_to_one(a, b)[1].mean(dtype=np.float64))


def correlation(
    a: Firings, b: Firings, match: Int64[np.ndarray, " latent"], tokens: int
) -> Float64[np.ndarray, " latent"]:
    """The correlation of each latent's activations with those of latent `match[latent]` of `b`, over all `tokens`.

    Where a latent does not fire its activation is 0. NaN for latents that do not fire at all, or whose match does not.
    """
    left, right = _activations(a, tokens), _activations(b, tokens)[match]
    both = left.multiply(right).sum(axis=1) / tokens
    (mean, spread), (other, other_spread) = _moments(left), _moments(right)
    with np.errstate(invalid="ignore"):
        return (both - mean * other) / (spread * other_spread)


def _activations(firings: Firings, tokens: int) -> csr_array:
    values = firings.values.astype(np.float64)
    return csr_array((values, firings.rows, firings.offsets), shape=(firings.latents, tokens))


def _moments(values: csr_array) -> tuple[Float64[np.ndarray, " latent"], Float64[np.ndarray, " latent"]]:
    """The mean and the standard deviation of each row."""
    tokens = values.shape[1]
    mean = values.sum(axis=1) / tokens
    return mean, np.sqrt(np.maximum(values.multiply(values).sum(axis=1) / tokens - mean**2, 0))
