"""The columns of a cell's features that are counted over all firings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from scipy.special import entr

from bisae.features.codes import Firings
from bisae.features.measures.language import class_names, classes, lape_classes, lape_kept, monolinguality
from bisae.features.tokens import Tokens


def by_language(
    latent: Integer[np.ndarray, " entry"],
    language: UInt8[np.ndarray, " entry"],
    shape: tuple[int, ...],
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Count entries, or sum their weights, by latent and language."""
    return np.bincount(latent * shape[1] + language, weights, minlength=shape[0] * shape[1]).reshape(shape)


def firing_columns(
    firings: Firings,
    sequences: Int64[np.ndarray, "latent language"],
    tokens: Tokens,
    languages: Sequence[str],
    held: Sequence[Int64[np.ndarray, " language"]],
    threshold: float,
) -> dict[str, Any]:
    """The columns that are counted over all firings, by the language of the document. Each is an array [latent].

    `sequences`: in how many each latent fires. `held`: how many tokens, and sequences, the text has.
    """
    names, (of_tokens, of_sequences) = list(class_names(languages).values()), held
    entry = firings.latent_of_entry(), tokens.language[firings.rows], (firings.latents, len(languages))
    fired, mass = by_language(*entry), by_language(*entry, firings.values)
    columns: dict[str, Any] = {"firings": fired.sum(1), "rate": fired.sum(1) / len(tokens)}
    rates, means = fired / np.maximum(of_tokens, 1), mass / np.maximum(of_tokens, 1)
    shares = rates / np.maximum(rates.sum(1, keepdims=True), np.finfo(float).tiny)
    own = monolinguality(means)
    for number, code in enumerate(languages):
        columns[f"firings_{code}"] = fired[:, number]
        columns[f"rate_{code}"] = rates[:, number]
        columns[f"mass_{code}"] = mass[:, number]
        columns[f"sequences_{code}"] = sequences[:, number]
        columns[f"monolinguality_{code}"] = own[:, number]
        columns[f"firing_share_{code}"] = np.where(fired.sum(1) > 0, shares[:, number], np.nan)
    return columns | {
        "class_firings": classes(rates, threshold, names),
        "class_monolinguality": classes(means, threshold, names),
        "lape": np.where(fired.sum(1) > 0, entr(shares).sum(1), np.nan),
        "class_lape": lape_classes(rates, names),
        "lape_kept": lape_kept(sequences, of_sequences, fired, of_tokens),
    }
