"""What the codes alone say of a cell's features: columns counted over all firings, and candidates for contexts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer, UInt8
from scipy.special import entr

from bisae.analysis.rules import Rules
from bisae.features.codes import CodesFolder, Firings
from bisae.features.contexts import Peaks
from bisae.features.measures.contextual import Groups, explained, halves
from bisae.features.measures.language import class_names, classes, lape_classes, lape_kept, monolinguality
from bisae.features.resampled import choose, sequence_draws
from bisae.features.tokens import Tokens
from bisae.runtime.threads import in_order


@dataclass(frozen=True, eq=False)
class FromCodes:
    """What a cell's codes say of its features.

    Attributes:
        maximum: Each latent's largest activation before TopK.
        columns: The columns of the table of features that are counted over all firings.
        latent, sequence: The candidates: pairs that are contexts of the whole text, grouped by latent, then further
            pairs, which are contexts in some resample.
        times: How often each resample has each candidate among its contexts.
        contexts: The number of contexts of the whole text.
    """

    maximum: Float32[np.ndarray, " latent"]
    columns: Mapping[str, np.ndarray]
    latent: Int64[np.ndarray, " candidate"]
    sequence: Int32[np.ndarray, " candidate"]
    times: UInt8[np.ndarray, "resample candidate"]
    contexts: int

    @classmethod
    def read(cls, codes: CodesFolder, tokens: Tokens, languages: Sequence[str], rules: Rules) -> "FromCodes":
        """Read the codes of a text, block by block."""
        maximum = codes.maximum()
        columns: list[dict[str, Any]] = []
        drawn = sequence_draws(tokens, rules.seed)
        candidates: tuple[list[Any], list[Any]] = [], []  # contexts of the whole text, and further ones
        spoken = tokens.language[tokens.borders[:-1]]  # in each sequence
        held = [np.bincount(language, minlength=len(languages)) for language in (tokens.language, spoken)]
        half = halves(tokens.document, rules.seed)
        of_token = {"by_token": tokens.token_ids, "by_previous": tokens.previous, "by_next": tokens.following}
        groups = {name: Groups.of(group, half) for name, group in of_token.items()}

        def counted_and_chosen(firings: Firings) -> tuple[dict[str, Any], list[tuple[np.ndarray, ...]]]:
            peaks = Peaks.of(firings, tokens.sequence)
            heard = by_language(peaks.latent, spoken[peaks.sequence], (firings.latents, len(languages)))
            column = firing_columns(firings, heard, tokens, languages, held, rules.threshold)
            column |= {name: explained(firings, group) for name, group in groups.items()}
            choice = choose(rules.patterns, peaks, maximum[firings.first : firings.first + firings.latents], drawn)
            split = np.split(choice.times, [len(choice.contexts)], axis=1)
            return column, [
                (peaks.latent[indices] + firings.first, peaks.sequence[indices], times)
                for indices, times in zip((choice.contexts, choice.further), split, strict=True)
            ]

        for column, of_part in in_order(
            counted_and_chosen, (part for block in codes.blocks() for part in block.parts())
        ):
            columns.append(column)
            for these, found in zip(candidates, of_part, strict=True):
                these.append(found)
        latent, sequence, times = (
            np.concatenate(column, -1) for column in zip(*candidates[0], *candidates[1], strict=True)
        )
        counted = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
        return cls(maximum, counted, latent, sequence, times, sum(len(these[0]) for these in candidates[0]))


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
