"""Perplexity in each language and in all, with intervals over documents, also of the difference to a baseline."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Num

from bisae.lm.losses import DocumentLosses
from bisae.metrics.intervals import Estimate, Statistics, estimates

ALL = "all"


def perplexities(
    losses: DocumentLosses, weights: Num[np.ndarray, "resample document"], mix: Mapping[str, float] | None
) -> Statistics:
    """exp(mean nats a token) of each language and of `all`, for documents counted as often as `weights` says.

    `all` pools the tokens of all languages; with `mix` it is the languages' perplexities averaged by these weights.
    NaN where there is no token.
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
    """Of each language and of `all`; `mix` as in `perplexities`."""
    return estimates(lambda weights: perplexities(losses, weights, mix), len(losses.nats), resamples, seed)


def perplexity_difference(
    losses: DocumentLosses, baseline: DocumentLosses, mix: Mapping[str, float] | None, resamples: int, seed: int
) -> dict[str, Estimate]:
    """Perplexity less the baseline's, paired: both are of the same documents in every resample."""
    if not np.array_equal(losses.tokens, baseline.tokens):
        raise ValueError("not the same documents: their numbers of tokens differ")

    def difference(weights: Num[np.ndarray, "resample document"]) -> Statistics:
        found, before = (perplexities(one, weights, mix) for one in (losses, baseline))
        return {name: found[name] - before[name] for name in found}

    return estimates(difference, len(losses.nats), resamples, seed)
