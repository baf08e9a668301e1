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

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8
from scipy.sparse import coo_array, csr_array

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


def explained(
    firings: Firings, group: Int[np.ndarray, " token"], half: UInt8[np.ndarray, " token"], groups: int
) -> Float64[np.ndarray, " latent"]:
    """Share of each latent's firing that the group explains; NaN if it fires always or less than twice in a half.

    Groups are 0..groups-1. A sequence's first token has no previous one: give these a group of their own.
    """
    entry = firings.latent_of_entry(), group[firings.rows]
    fired, tokens = [], []  # by half: firings [latent, group] and tokens [group]
    for number in range(2):
        weights = (half[firings.rows] == number).astype(np.float64)
        fired.append(coo_array((weights, entry), shape=(firings.latents, groups)).tocsr())
        tokens.append(np.bincount(group[half == number], minlength=groups))
    error, variance = np.add(
        _squares(fired[0], tokens[0], fired[1], tokens[1]), _squares(fired[1], tokens[1], fired[0], tokens[0])
    )
    defined = (np.minimum(fired[0].sum(1), fired[1].sum(1)) >= 2) & (variance > 0)
    return np.where(defined, 1 - error / np.where(defined, variance, 1), np.nan)


def _squares(
    fitted: csr_array, fitted_tokens: np.ndarray, predicted: csr_array, tokens: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of one half per latent, predicted by the other half's group means and by its overall mean.

    y is 0 or 1, so sum (y - m)^2 = sum y - 2 m sum y + m^2 tokens: only groups with a firing have terms.
    """
    unseen = fitted_tokens == 0
    means = fitted.multiply(1 / np.where(unseen, 1, fitted_tokens)).tocsr()
    overall = fitted.sum(1) / max(fitted_tokens.sum(), 1)
    sums = predicted.sum(1)
    known = means.power(2) @ tokens - 2 * predicted.multiply(means).sum(1)
    unknown = overall**2 * tokens[unseen].sum() - 2 * overall * (predicted @ unseen)
    return sums + known + unknown, sums - 2 * overall * sums + overall**2 * tokens.sum()
