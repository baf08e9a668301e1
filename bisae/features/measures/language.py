"""The language of a feature: the rule of the study's first version (v1), and other definitions in the literature.

A token is English if it holds only ASCII letters, white space and `"'(),.-`, and is not blank. A token of the digits
0-9 has the language of the token before it. All other tokens are Japanese, byte tokens and the empty token too. A
feature is of a language if strictly more than a threshold of its tokens is in it; otherwise it is Mixed.
"""

import math
import re
from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Num, Shaped, UInt8

from bisae.corpus.languages import NAMES, plain_of
from bisae.runtime.errors import Refused

SCRIPTS = ("en", "ja")  # what the rule tells apart, by number
ENGLISH, JAPANESE, DIGITS = range(3)
MIXED, DEAD = "Mixed", "dead"
LAPE_RATIO, LAPE_SEQUENCES, LAPE_TOKENS = 0.5, 0.98, 0.1  # as in the published code of SAE-LAPE


def _script(text: str) -> int:
    text = text.replace("▁", " ").strip()  # SentencePiece's space mark, which v1 shows as a space
    if re.fullmatch(r"[A-Za-z\s\"'(),.-]+", text):
        return ENGLISH
    return DIGITS if re.fullmatch("[0-9]+", text) else JAPANESE


def feature_language(
    contexts: Sequence[Sequence[tuple[str, SupportsFloat]]], threshold: float = 0.9
) -> tuple[str, dict[str, int]]:
    """Language of one feature, English or Japanese, by the characters of its strongest tokens.

    In each context the token with the largest activation decides; the first of them if several are equal. A token of
    digits has the language of the token before it. The token before the first one is the last one, as Python's index
    -1 says. A context of digits alone, for which the original rule has no answer, is Japanese, as all text is that is
    not English.

    Args:
        contexts: For each context its tokens in order, as pairs (token text, activation).
        threshold: The feature is of a language if strictly more than this share of its contexts is in it. At least
            0.5, so that at most one language can be above it, and below 1.

    Returns:
        The class of the feature ("English", "Japanese", "Mixed", or "dead" without any context), and the number of
        contexts in each language, by its code: {"en": 2, "ja": 1}.

    Raises:
        ValueError: A context has no tokens, an activation is not a number, or the threshold is out of range.
    """
    if not 0.5 <= threshold < 1:
        raise ValueError(f"threshold={threshold}: must be at least 0.5 and below 1")
    counts = dict.fromkeys(SCRIPTS, 0)
    for context in contexts:
        activations = [float(activation) for _, activation in context]
        if not activations:
            raise ValueError("a context has no tokens")
        if any(map(math.isnan, activations)):
            raise ValueError(f"an activation is not a number in the context {list(context)}")
        peak = activations.index(max(activations))
        backwards = (_script(context[position][0]) for position in range(peak, peak - len(context), -1))
        script = next((script for script in backwards if script != DIGITS), JAPANESE)
        counts[SCRIPTS[script]] += 1
    names = list(class_names(SCRIPTS).values())
    return str(classes(np.array([list(counts.values())]), threshold, names)[0]), counts


def in_scripts(languages: Sequence[str]) -> bool:
    """True if a text is in exactly the languages that the rule tells apart."""
    return sorted(map(plain_of, languages)) == sorted(SCRIPTS)


def check_script_languages(languages: Sequence[str]) -> None:
    """Refuse a text that is not `in_scripts`."""
    if not in_scripts(languages):
        remedy = f"tells only English from Japanese, but the text is in {', '.join(languages)}; use language=document"
        raise Refused("language", "script", remedy)


def script_of_tokens(texts: Sequence[str]) -> UInt8[np.ndarray, " vocabulary"]:
    """The script of each vocabulary item by its text: 0 (English), 1 (Japanese) or 2 (digits)."""
    return np.array([_script(text) for text in texts], np.uint8)


def script_of_rows(
    token_ids: Int32[np.ndarray, " token"],
    sequence: Int32[np.ndarray, " token"],
    script: UInt8[np.ndarray, " vocabulary"],
) -> UInt8[np.ndarray, " token"]:
    """The language of each token: 0 (English) or 1 (Japanese). Digits have that of the token before them.

    Args:
        token_ids: The ids of the tokens.
        sequence: The sequence of each token, in ascending order.
        script: The script of each vocabulary item (`script_of_tokens`).
    """
    found = script[token_ids]
    _, starts, lengths = np.unique(sequence, return_index=True, return_counts=True)
    first, last = np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)  # rows of the token's sequence
    before = np.maximum.accumulate(np.where(found != DIGITS, np.arange(len(found)), -1))
    before = np.where(before < first, before[last], before)  # none before it: from the sequence's end
    return np.where(before < first, JAPANESE, found[before]).astype(np.uint8)


def class_names(languages: Sequence[str]) -> dict[str, str]:
    """The name of each language's class, by its code (`bisae.corpus.languages`). Without a name it is the code."""
    return {code: NAMES.get(code, code) for code in languages}


def classes(
    counts: Num[np.ndarray, "feature language"], threshold: float, names: Sequence[str]
) -> Shaped[np.ndarray, " feature"]:
    """The class of each feature: one of `names`, "Mixed", or "dead" if all its counts are 0.

    Args:
        counts: Counts, or rates, of each feature in each language.
        threshold: A feature is of a language if strictly more than this share is in it; at least 0.5.
        names: The name of each language's class.
    """
    total = counts.sum(1, keepdims=True)
    over = counts / np.where(total > 0, total, 1) > threshold
    living = np.where(over.any(1), np.array(names)[over.argmax(1)], MIXED)
    return np.where(total[:, 0] > 0, living, DEAD)


def lape_classes(
    rates: Float64[np.ndarray, "feature language"], names: Sequence[str]
) -> Shaped[np.ndarray, " feature"]:
    """The class of each feature by SAE-LAPE: the language in which it fires most, if it fires in all others less than
    `LAPE_RATIO` times as often; otherwise "Mixed", or "dead". Source: Andrylie et al. 2025, arXiv 2507.11230.

    Args:
        rates: The firing rate per token of each language.
        names: The name of each language's class.
    """
    most = rates.max(1, keepdims=True)
    living = np.where((rates >= LAPE_RATIO * most).sum(1) == 1, np.array(names)[rates.argmax(1)], MIXED)
    return np.where(most[:, 0] > 0, living, DEAD)


def lape_kept(
    sequences: Int64[np.ndarray, "feature language"],
    of_sequences: Int64[np.ndarray, " language"],
    firings: Int64[np.ndarray, "feature language"],
    of_tokens: Int64[np.ndarray, " language"],
) -> Bool[np.ndarray, " feature"]:
    """The features that SAE-LAPE's filters keep: they fire in nearly all sequences of one language, and on many tokens.

    Args:
        sequences: In how many sequences of each language the feature fires.
        of_sequences: The number of sequences of each language.
        firings: On how many tokens of each language the feature fires.
        of_tokens: The number of tokens of each language.
    """
    everywhere = sequences >= np.maximum((LAPE_SEQUENCES * of_sequences).astype(int), 1)
    often = firings > (LAPE_TOKENS * of_tokens).astype(int)
    return np.logical_and(everywhere.any(1), often.any(1))


def monolinguality(means: Float64[np.ndarray, "feature language"]) -> Float64[np.ndarray, "feature language"]:
    """The mean activation on each language minus the mean of those on the others (Deng et al., ACL 2025).

    Args:
        means: The mean activation on the tokens of each language, 0 where the feature does not fire.
    """
    return means - (means.sum(1, keepdims=True) - means) / max(means.shape[1] - 1, 1)


def agreement(one: Shaped[np.ndarray, " feature"], other: Shaped[np.ndarray, " feature"]) -> tuple[float, float]:
    """The share of equal labels, and Cohen's kappa, which is NaN if all labels are one. Both are NaN without labels."""
    if not len(one):
        return math.nan, math.nan
    same = float(np.mean(one == other))
    chance = sum(float(np.mean(one == name) * np.mean(other == name)) for name in np.unique(one))
    return same, (same - chance) / (1 - chance) if chance < 1 else math.nan


def shares_by_threshold(
    counts: Num[np.ndarray, "feature language"], thresholds: Float64[np.ndarray, " threshold"]
) -> Float64[np.ndarray, "threshold language_and_mixed"]:
    """The share of the alive features in each class, Mixed last, at each threshold. NaN if none is alive."""
    alive = counts[counts.sum(1) > 0]
    names = [str(language) for language in range(counts.shape[1])]
    shares = np.full((len(thresholds), len(names) + 1), np.nan)
    for row, threshold in zip(shares, thresholds.tolist(), strict=True):
        found = classes(alive, threshold, names)
        row[:] = [np.mean(found == name) if len(found) else np.nan for name in (*names, MIXED)]
    return shares
