"""The table of a cell's features: one row per latent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int8, Int64, Integer, UInt8
from scipy.sparse import csr_array

from bisae.analysis.firing_columns import FromCodes, by_language
from bisae.analysis.rules import Rules
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import CodesFolder
from bisae.features.measures.alignment import AlignmentScores, aligned, alignment, jaccard
from bisae.features.measures.bilingual import is_bilingual
from bisae.features.measures.clusters import Clustering, TokenCounts
from bisae.features.measures.contextual import is_contextual
from bisae.features.measures.cross import cross
from bisae.features.measures.language import MIXED, class_names, classes
from bisae.features.measures.monosemanticity import entropies, ratio, scores
from bisae.features.read_contexts import FeatureContexts, WantedContexts, read_contexts
from bisae.features.resampled import peaks_again
from bisae.features.steps import Steps
from bisae.features.tokens import Tokens
from bisae.runtime.threads import in_order
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Text:
    """What the cells of one LM and one text have in common, besides the activations."""

    languages: Sequence[str]
    language: UInt8[np.ndarray, " token"]  # by the language rule
    clustering: Clustering
    words: Int8[np.ndarray, " vocabulary"]  # the language of each word (`bisae.features.measures.cross`)
    script: UInt8[np.ndarray, " token"] | None  # by v1's rule; None where it cannot tell the languages apart


@dataclass(frozen=True, eq=False)
class Described:
    """A cell's features, their contexts, and the tokens at the contexts' peaks with their clusters."""

    features: pd.DataFrame
    contexts: FeatureContexts
    counts: TokenCounts
    clusters: Int64[np.ndarray, " entry"]
    peak_language: UInt8[np.ndarray, " context"]
    resampled: "Resampled"
    jaccard: tuple[float, float] | None  # of the latents active on sentences: with translations, with others


@dataclass(frozen=True, eq=False)
class Peaked:
    """Counts the languages and the tokens at the peaks of contexts, for each latent."""

    tokens: Tokens
    text: Text
    latents: int

    def counts(
        self, latent: Integer[np.ndarray, " context"], sequence: Integer[np.ndarray, " context"], peak: np.ndarray
    ) -> tuple[Int64[np.ndarray, "latent language"], TokenCounts]:
        row = self.tokens.borders[sequence] + peak
        counted = by_language(latent, self.text.language[row], (self.latents, len(self.text.languages)))
        return counted, TokenCounts.of(latent, self.tokens.token_ids[row], self.latents)


@dataclass(frozen=True, eq=False)
class Resampled:
    """What the features are in resamples of the documents: contexts chosen again, their tokens clustered again."""

    documents: int
    counted: Int64[np.ndarray, "resample feature language"]  # contexts
    score: Float64[np.ndarray, "resample feature"]  # monosemanticity; NaN if dead or of a single token

    @classmethod
    def of(
        cls, peaked: Peaked, steps: Steps, sequence: np.ndarray, again: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> "Resampled":
        """From the candidates that are contexts in each resample, and their peaks. `sequence`: of each candidate."""

        def described(drawn: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            chosen, peak = drawn
            counted, counts = peaked.counts(steps.latent[chosen], sequence[chosen], peak)
            score = ratio(*entropies(counts, peaked.text.clustering.entry_clusters(counts)))
            return counted, np.where(np.diff(counts.offsets) > 1, score, np.nan)

        found = list(in_order(described, again))
        documents = len(np.unique(peaked.tokens.document))
        return cls(documents, *map(np.stack, zip(*found, strict=True)))


@dataclass(frozen=True, eq=False)
class CodedCell:
    """A cell's SAE, the layer that it reads, and its codes of the text.

    `sides`: the latents' activations on sentence pairs, one `Side` per language; None without pairs.
    """

    layer: int
    sae: SparseAutoencoder
    codes: CodesFolder
    sides: Sequence["Side"] | None


def describe(reading: AnalysedActivations, cells: Sequence[CodedCell], text: Text, rules: Rules) -> Iterator[Described]:
    """Describe every feature of cells from their codes; docs/analysis.md explains the columns.

    The text is read once for the contexts of all cells, which can be chosen only when all codes are known.

    Args:
        reading: The LM's activations on the analysed text.
        cells: The cells, all of one LM checkpoint.
        text: The languages of the tokens, and the clusters of meaning.
        rules: How features are described.

    Yields:
        The features of each cell.
    """
    counted = [FromCodes.read(cell.codes, reading.tokens, text.languages, rules) for cell in cells]
    candidates = [
        WantedContexts(cell.layer, cell.sae, found.latent, found.sequence, found.contexts, cell.codes.folder)
        for cell, found in zip(cells, counted, strict=True)
    ]
    contexts = read_contexts(reading, candidates)
    for cell, found, read in zip(cells, counted, contexts, strict=True):
        yield _described(reading.tokens, found, *read, cell.sides, text, rules)


def _described(
    tokens: Tokens,
    found: FromCodes,
    contexts: FeatureContexts,
    steps: Steps,
    sides: Sequence["Side"] | None,
    text: Text,
    rules: Rules,
) -> Described:
    names, latents = class_names(text.languages), len(found.maximum)
    peaked = Peaked(tokens, text, latents)
    counted, counts = peaked.counts(contexts.latent, contexts.sequence, contexts.peak)
    resampled = Resampled.of(peaked, steps, found.sequence, peaks_again(steps, contexts, found.times))
    mono = rules.monosemanticity
    null = scores(counts, text.clustering, mono.shuffles, mono.quantile, rules.seed)
    total, classed = counted.sum(1), classes(counted, rules.threshold, list(names.values()))
    peak = tokens.borders[contexts.sequence] + contexts.peak
    views = {"document": tokens.language} | ({} if text.script is None else {"script": text.script})
    crossed = cross(counts, text.words, text.clustering, classed == MIXED, **asdict(rules.cross))

    table: dict[str, Any] = {
        "feature": np.arange(latents, dtype=np.int32),
        "class": classed,
        **{
            f"class_{view}": classes(
                by_language(contexts.latent, language[peak], counted.shape), rules.threshold, list(names.values())
            )
            for view, language in views.items()
        },
        "maximum": found.maximum,
        **found.columns,
        **{f"share_{code}": _ratio(counted[:, number], total) for number, code in enumerate(text.languages)},
        "contexts": total.astype(np.int32),
        "distinct_tokens": null.distinct.astype(np.int32),
        "single_token": null.distinct == 1,
        "h_token": null.h_token,
        "h_semantic": null.h_semantic,
        "monosemanticity": null.score,
        "monosemanticity_null": null.null_mean,
        "monosemanticity_null_high": null.null_high,
        "monosemanticity_null_above": null.null_above,
        "cross": crossed.score,
        "cross_p": crossed.p,
        "cross_q": crossed.q,
        "cross_null": crossed.null,
        "cross_left_out": crossed.both,
    }
    table |= _alignment_columns(sides, rules) if sides else NO_PAIRS
    features = pd.DataFrame(table)
    token, previous, following = (features[name].to_numpy() for name in ("by_token", "by_previous", "by_next"))
    features["contextual"] = is_contextual(token, previous, following, **asdict(rules.contextual))
    features["bilingual"] = is_bilingual(features, rules.bilingual, rules.cross.level)
    clusters = text.clustering.entry_clusters(counts)
    return Described(features, contexts, counts, clusters, text.language[peak], resampled, _jaccard(sides, rules.seed))


@dataclass(frozen=True, eq=False)
class Side:
    """The largest activation of each latent in each sentence of one language, on words and on other tokens."""

    words: csr_array
    others: csr_array


NO_PAIRS = {
    **dict.fromkeys(("alignment", "alignment_p", "alignment_shuffled", "alignment_other"), np.nan),
    **dict.fromkeys(("aligned", "aligned_shuffled"), False),
}


def _alignment_columns(sides: Sequence[Side], rules: Rules) -> Mapping[str, Any]:
    rule = rules.alignment
    left, right = sides
    words: AlignmentScores = alignment(left.words, right.words, rule.permutations, rules.seed)
    others: AlignmentScores = alignment(left.others, right.others, 1, rules.seed)
    return {
        "alignment": words.r,
        "alignment_p": words.p,
        "alignment_shuffled": words.r_shuffled,
        "alignment_other": others.r,
        "aligned": aligned(words.r, words.p, rule.least, rule.level),
        "aligned_shuffled": aligned(words.r_shuffled, words.p_shuffled, rule.least, rule.level),
    }


def _jaccard(sides: Sequence[Side] | None, seed: int) -> tuple[float, float] | None:
    if not sides:
        return None
    left, right = (side.words + side.others for side in sides)
    shuffled = np.random.default_rng(seed).permutation(right.shape[0])
    return float(jaccard(left, right).mean()), float(jaccard(left, right[shuffled]).mean())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
