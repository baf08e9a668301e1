"""Scores of translations: corpus scores with 95 % intervals over examples, and paired changes."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from bisae.lm.generation import TranslatingLM
from bisae.metrics.intervals import Interval, document_weights, percentiles
from bisae.metrics.translation import MeanOfSegments, MetricUnavailable
from bisae.runtime.atomic import atomic_file
from bisae.runtime.errors import Refused
from bisae.translation.prompts import TaskIds, normalised
from bisae.translation.tasks import Task


@dataclass(frozen=True, eq=False)
class Translations:
    """An LM's answers to the examples of a task, and its losses on their references.

    Attributes:
        answers: generated texts; "" where none was asked for.
        nats: cross-entropy of each reference after its own prompt, summed over its tokens.
        tokens: how many tokens that are.
        nats_other: the same after another example's prompt, NaN where there is none. The difference to `nats` shows
            whether the LM uses the source text or only models the target language.
    """

    task: Task
    answers: tuple[str, ...]
    nats: Float64[np.ndarray, " example"]
    tokens: Int64[np.ndarray, " example"]
    nats_other: Float64[np.ndarray, " example"]


def translate(ids: TaskIds, lm: TranslatingLM, answers: bool = True) -> Translations:
    """Generate the answers of a task, unless `answers` is False, and measure the losses of its references."""
    written = [""] * len(ids.prompts)
    if answers:
        written = lm.generate(ids.prompts, ids.prompt.stop, ids.task.max_new_tokens)
    losses, others = lm.token_losses(ids.texts, ids.starts), lm.token_losses(ids.others, ids.other_starts)
    return Translations(
        ids.task,
        tuple(map(ids.prompt.answer, written)),
        np.array([loss.sum() for loss in losses]),
        np.array([len(loss) for loss in losses]),
        np.array([loss.sum() for loss in others]) if others else np.full(len(losses), np.nan),
    )


Columns = Mapping[str, Sequence[str]]


def segment_scores(metric: Any, many: Sequence[Columns], folder: Path) -> list[Float64[np.ndarray, " example"]]:
    """Scores of examples, from a file in `folder` where they are known; new ones are added to it.

    Args:
        metric: a `MeanOfSegments`; its `signature` names the file.
        many: columns of text by name, of several sets of examples.

    Returns:
        The score of each example, one array for each set.
    """
    name = hashlib.sha256(metric.signature.encode()).hexdigest()[:12]
    path = folder / f"{type(metric).__name__.lower()}-{name}.parquet"
    kept = {} if not path.is_file() else dict(zip(*pd.read_parquet(path).to_numpy().T, strict=True))
    rows = [list(zip(*(columns[name] for name in metric.features), strict=True)) for columns in many]
    missing = {_key(row): row for part in rows for row in part if _key(row) not in kept}
    if missing:
        texts = zip(*missing.values(), strict=True)
        computed = metric.compute(**{name: list(text) for name, text in zip(metric.features, texts, strict=True)})
        kept |= dict(zip(missing, computed["segments"], strict=True))
        with atomic_file(path) as temporary:
            pd.DataFrame({"key": list(kept), "score": list(kept.values())}).to_parquet(temporary)
    return [np.array([kept[_key(row)] for row in part], np.float64) for part in rows]


def _key(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


LOSS, GAIN = "loss", "source_gain"
log = logging.getLogger("bisae.translation")


@dataclass(frozen=True, eq=False)
class Score:
    """A metric's score on all examples (`value`), on each example (`segments`), and on resamples of the examples."""

    value: float
    segments: Float64[np.ndarray, " example"]
    resampled: Float64[np.ndarray, " resample"]
    signature: str

    @property
    def interval(self) -> Interval:
        return percentiles(self.resampled)

    def change(self, baseline: "Score") -> tuple[float, Interval]:
        """The difference to a baseline on the same examples, by a Scorer of the same seed, and its 95 % interval."""
        if len(self.segments) != len(baseline.segments):
            raise ValueError(f"{len(self.segments)} examples against {len(baseline.segments)}")
        return self.value - baseline.value, percentiles(self.resampled - baseline.resampled)


@dataclass(frozen=True)
class Scorer:
    """Scores translations with metrics.

    Attributes:
        metrics: by name (`bisae.metrics.translation`).
        resamples: how many resamples of the examples are drawn, from `seed`.
        folder: keeps the scores of slow metrics.
    """

    metrics: Mapping[str, Any]
    resamples: int
    seed: int
    folder: Path

    def check(self, tasks: Sequence[Task]) -> None:
        """Refuse metrics that cannot score the languages of the tasks; slow metrics compute nothing for this.

        Raises:
            Refused: the field is `<metric>.<argument>`, or `<metric>` if it fails in another way.
        """
        into = {task.target_language for task in tasks}
        for name, metric in self.metrics.items():
            try:
                if hasattr(metric, "check"):
                    metric.check(into | {task.source_language for task in tasks})
                for language in sorted(into) if not isinstance(metric, MeanOfSegments) else ():
                    metric.compute(**dict.fromkeys(metric.features, ["a"]), language=language)
            except Refused as error:
                raise Refused(f"{name}.{error.field}", error.found, error.remedy) from error
            except Exception as error:  # whatever a metric of the user's raises
                raise Refused(name, "...", f"{type(error).__name__}: {error}") from error

    def scores(self, many: Sequence[Translations]) -> list[dict[str, Score]]:
        """The scores of each task's translations, by name.

        `loss` is in nats per token of the references; `source_gain` is how much lower it is than after a wrong source
        (the same tokens, except at the border of prompt and reference). An unavailable metric is left out, with a
        warning.
        """
        weights = [self._weights(len(translations.answers)) for translations in many]
        by_task = [_losses(translations, weight) for translations, weight in zip(many, weights, strict=True)]
        columns = [_columns(translations) for translations in many]
        for name, metric in self.metrics.items():
            try:
                if isinstance(metric, MeanOfSegments):
                    of_examples = segment_scores(metric, columns, self.folder)
                    signature = metric.signature
                    scores = [
                        Score(float(segments.mean()), segments, weight @ segments / weight.sum(1), signature)
                        for segments, weight in zip(of_examples, weights, strict=True)
                    ]
                else:
                    scores = [self._score(metric, *parts) for parts in zip(many, columns, weights, strict=True)]
            except MetricUnavailable as error:
                log.warning("%s is left out: %s", name, error)
                continue
            for of_task, score in zip(by_task, scores, strict=True):
                of_task[name] = score
        return by_task

    def _weights(self, examples: int) -> Int64[np.ndarray, "resample example"]:
        weights = document_weights(examples, self.resamples, self.seed)
        return weights[weights.any(1)].astype(np.int64)  # a resample of few examples may be empty

    def _score(self, metric: Any, translations: Translations, columns: Columns, weights: np.ndarray) -> Score:
        texts = {name: columns[name] for name in metric.features}
        computed = metric.compute(**texts, language=translations.task.target_language, weights=weights)
        segments, resampled = (np.array(computed[name], np.float64) for name in ("segments", "resampled"))
        return Score(computed["score"], segments, resampled, computed["signature"])


def _columns(translations: Translations) -> Columns:
    examples = translations.task.examples
    return {
        "sources": [example.source for example in examples],
        "predictions": translations.answers,
        "references": [normalised(example.reference) for example in examples],
    }


def _losses(translations: Translations, weights: Int64[np.ndarray, "resample example"]) -> dict[str, Score]:
    nats, tokens = translations.nats, translations.tokens
    losses = {LOSS: (nats, "nats per reference token")}
    if not np.isnan(gain := translations.nats_other - nats).any():
        losses[GAIN] = gain, "nats per reference token by which the right source beats a wrong one"
    return {
        name: Score(float(sums.sum() / tokens.sum()), sums / tokens, (weights @ sums) / (weights @ tokens), unit)
        for name, (sums, unit) in losses.items()
    }
