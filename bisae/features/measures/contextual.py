"""The rule for *contextual* features, a definition of our own, and how much of a feature's firing a token explains.

A feature is contextual if the token that it fires on explains little of its firing, and the token before or after
explains some of it.

Let y be 1 on the tokens where the feature fires, else 0. Let g be the token's group: its id, or the id of the token
before or after it. The text is cut in two halves of whole documents, and the means of y by group in one half predict y
in the other half:

    explained = 1 - sum (y - y_hat)^2 / sum (y - y_bar)^2      sums over both halves

y_hat: mean of y over the tokens of the same group in the other half (over all its tokens if the group is not there)
y_bar: mean of y over all tokens of the other half

If it is 1, the group decides whether the feature fires; if it is 0, the group says nothing about that. It is below 0
where one half misleads about the other, as means over few tokens do. So short texts lower it: compare only values that
were measured on the same text.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, Integer, UInt8, UInt32

from bisae.features.codes import Firings


def is_contextual(
    by_token: Float64[np.ndarray, " latent"],
    by_previous: Float64[np.ndarray, " latent"],
    by_next: Float64[np.ndarray, " latent"],
    token: float,
    context: float,
) -> Bool[np.ndarray, " latent"]:
    """Which latents are contextual. A latent whose values are NaN is not; of two neighbours one may be NaN.

    Without `context`, the least that a neighbour must explain, features that fire at random would be contextual.

    Args:
        by_token: Share of each latent's firing that the token itself explains (`explained`).
        by_previous: The share that the token before it explains.
        by_next: The share that the token after it explains.
        token: `by_token` must be below this.
        context: The larger of `by_previous` and `by_next` must be above this.
    """
    return (by_token < token) & (np.fmax(by_previous, by_next) > context)


def halves(document: Int[np.ndarray, " token"], seed: int) -> UInt8[np.ndarray, " token"]:
    """Half (0 or 1) of each token, drawn by document: where languages alternate, parity would part them."""
    drawn = np.random.default_rng(seed).integers(2, size=document.max(initial=-1) + 1, dtype=np.uint8)
    return drawn[document]


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a text's tokens, and which half each token is in."""

    key: UInt32[np.ndarray, " token"]  # twice the token's group, plus its half
    tokens: Int64[np.ndarray, " key"]  # how many have each key

    @classmethod
    def of(cls, group: Integer[np.ndarray, " token"], half: UInt8[np.ndarray, " token"]) -> "Groups":
        """From each token's group, at least 0. A sequence's first token has no previous one: give these their own."""
        key = group.astype(np.uint32)
        key <<= 1
        key |= half
        return cls(key, np.bincount(key, minlength=2 * (int(group.max(initial=0)) + 1)))

    @cached_property
    def of_half(self) -> Int64[np.ndarray, "2"]:
        """The number of tokens of each half."""
        return self.tokens.reshape(-1, 2).sum(0)

    @cached_property
    def unseen(self) -> Int64[np.ndarray, "2"]:
        """For each half, how many tokens of the other one are in groups that it does not have."""
        by_half = self.tokens.reshape(-1, 2)
        return (by_half[:, ::-1] * (by_half == 0)).sum(0)


def explained(firings: Firings, groups: Groups) -> Float64[np.ndarray, " latent"]:
    """Share of each latent's firing that the group explains; NaN if it fires always or less than twice in a half.

    y is 0 or 1, so sum (y - m)^2 = sum y - 2 m sum y + m^2 tokens: only groups with a firing have terms.
    """
    keys = len(groups.tokens)
    kind: Any = np.uint32 if firings.latents * keys < 2**32 else np.uint64
    pairs = np.repeat(np.arange(firings.latents, dtype=kind) * kind(keys), np.diff(firings.offsets))
    pairs += groups.key[firings.rows]
    pairs.sort()
    new = np.ones(len(pairs), bool)
    np.not_equal(pairs[1:], pairs[:-1], out=new[1:])
    first = np.flatnonzero(new)
    fired = np.diff(first, append=len(pairs)).astype(np.float64)  # by latent, group and half
    latent, key = np.divmod(pairs[first], kind(keys))
    place = latent.astype(np.int64) * 2 + (key & kind(1))

    def summed(values: Float64[np.ndarray, " some"], some: Any = slice(None)) -> np.ndarray:
        return np.bincount(place[some], values, 2 * firings.latents).reshape(-1, 2)

    mean, other = fired / groups.tokens[key], groups.tokens[key ^ kind(1)]
    both = np.flatnonzero((place[1:] == place[:-1] + 1) & (key[1:] == key[:-1] + 1) & (key[:-1] & kind(1) == 0))
    products = [summed(mean[both + half] * fired[both + 1 - half], both)[:, :1] for half in range(2)]
    only = np.flatnonzero(other == 0)
    # By the half that is fitted: of the other one, which it predicts, sums are in reverse.
    sums = summed(fired)
    overall, predicted = sums / np.maximum(groups.of_half, 1), sums[:, ::-1]
    known = summed(mean**2 * other) - 2 * np.concatenate(products, 1)
    unknown = overall**2 * groups.unseen - 2 * overall * summed(fired[only], only)[:, ::-1]
    error = (predicted + known + unknown).sum(1)
    variance = (predicted - 2 * overall * predicted + overall**2 * groups.of_half[::-1]).sum(1)
    defined = (sums.min(1) >= 2) & (variance > 0)
    return np.where(defined, 1 - error / np.where(defined, variance, 1), np.nan)
