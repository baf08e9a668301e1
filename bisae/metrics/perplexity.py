"""Perplexity of an LM in each language and over all, and its difference to a baseline, with intervals."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Num

from bisae.lm.losses import DocumentLosses
from bisae.metrics.intervals import Estimate, Statistics, estimates

ALL = "all"


def perplexities(
    losses: DocumentLosses, weights: Num[np.ndarray, "resample document"], mix: Mapping[str, float] | None
) -> Statistics:
    """Perplexity, exp(mean nats per token), in each language and over `all`, in resamples of the documents.

    Args:
        losses: The nats and the number of tokens of each document.
        weights: How often each resample contains each document.
        mix: With None, `all` pools the tokens of all languages. Otherwise it is the mean of the languages'
            perplexities, weighted by these weights.

    Returns:
        The perplexities by language, and `all`; NaN in a resample without a token.
    """
    of_language = losses.language[:, None] == np.arange(len(losses.languages))
    nats, tokens = (weights @ (column[:, None] * of_language) for column in (losses.nats, losses.tokens))
    with np.errstate(invalid="ignore", divide="ignore"):
        each, pooled = np.exp(nats / tokens), np.exp(nats.sum(1) / tokens.sum(1))
    found = dict(zip(losses.languages, each.T, strict=True))
    if mix is not None:
        pooled = np.average([found[language] for language in mix], axis=0, weights=list(mix.values()))
    return {**found, ALL: pooled}


def perplexity(
    losses: DocumentLosses, mix: Mapping[str, float] | None, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Perplexity in each language and over `all`, with intervals over documents. `mix`: see `perplexities`."""
    return estimates(lambda weights: perplexities(losses, weights, mix), len(losses.nats), resamples, seed)


def perplexity_difference(
    losses: DocumentLosses, baseline: DocumentLosses, mix: Mapping[str, float] | None, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Perplexity minus that of the baseline, paired: in every resample both use the same documents.

    Raises:
        ValueError: The two are not of the same documents.
    """
    if not np.array_equal(losses.tokens, baseline.tokens):
        raise ValueError("not the same documents: their numbers of tokens differ")

    def difference(weights: Num[np.ndarray, "resample document"]) -> Statistics:
        own, before = perplexities(losses, weights, mix), perplexities(baseline, weights, mix)
        return {name: own[name] - before[name] for name in own}

    return estimates(difference, len(losses.nats), resamples, seed)
