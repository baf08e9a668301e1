"""How good translations are: corpus scores with 95 % intervals over examples, and paired changes."""

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
    """`answers` to a task's examples; `nats`: cross-entropy of each reference after its prompt, of `tokens` tokens.

    `nats_other`: of the same reference after another example's prompt, NaN where there is none. What the right source
    saves tells an LM that translates from one that only knows the language it writes. `answers` are "" where nothing
    was to be written.
    """

    task: Task
    answers: tuple[str, ...]
    nats: Float64[np.ndarray, " example"]
    tokens: Int64[np.ndarray, " example"]
    nats_other: Float64[np.ndarray, " example"]


def translate(ids: TaskIds, lm: TranslatingLM, answers: bool = True) -> Translations:
    written = [""] * len(ids.prompts)
    if answers:
        written = lm.generate(ids.prompts, ids.prompt.stop, ids.task.max_new_tokens)
    losses, others = (
        [loss[start - 1 :] for loss, start in zip(lm.token_losses(texts), starts, strict=True)]
        for texts, starts in ((ids.texts, ids.starts), (ids.others, ids.other_starts))
    )
    return Translations(
        ids.task,
        tuple(map(ids.prompt.answer, written)),
        np.array([loss.sum() for loss in losses]),
        np.array([len(loss) for loss in losses]),
        np.array([loss.sum() for loss in others]) if others else np.full(len(losses), np.nan),
    )


Columns = Mapping[str, Sequence[str]]


def segment_scores(metric: Any, many: Sequence[Columns], folder: Path) -> list[Float64[np.ndarray, " example"]]:
    """The score of each example of each of `many`; what is asked for the first time is kept in `folder`.

    `metric` has a `signature`, which names the file, and is a metric whose score is the mean over examples.
    """
    name = hashlib.sha256(metric.signature.encode()).hexdigest()[:12]
    path = folder / f"{type(metric).__name__.lower()}-{name}.parquet"
    kept = {} if not path.is_file() else dict(zip(*pd.read_parquet(path).to_numpy().T, strict=True))
    rows = [list(zip(*(columns[name] for name in metric.features), strict=True)) for columns in many]
    missing = {_key(row): row for part in rows for row in part if _key(row) not in kept}
    if missing:
        texts = zip(*missing.values(), strict=True)
        made = metric.compute(**{name: list(text) for name, text in zip(metric.features, texts, strict=True)})
        kept |= dict(zip(missing, made["segments"], strict=True))
        with atomic_file(path) as temporary:
            pd.DataFrame({"key": list(kept), "score": list(kept.values())}).to_parquet(temporary)
    return [np.array([kept[_key(row)] for row in part], np.float64) for part in rows]


def _key(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


LOSS, GAIN = "loss", "source_gain"
log = logging.getLogger("bisae.translation")


@dataclass(frozen=True, eq=False)
class Score:
    """Of all examples, of each of them, and of resamples of them."""

    value: float
    segments: Float64[np.ndarray, " example"]
    resampled: Float64[np.ndarray, " resample"]
    signature: str

    @property
    def interval(self) -> Interval:
        return percentiles(self.resampled)

    def change(self, baseline: "Score") -> tuple[float, Interval]:
        """The difference to a baseline on the same examples, by a Scorer of the same seed."""
        if len(self.segments) != len(baseline.segments):
            raise ValueError(f"{len(self.segments)} examples against {len(baseline.segments)}")
        return self.value - baseline.value, percentiles(self.resampled - baseline.resampled)


@dataclass(frozen=True)
class Scorer:
    """`metrics` by name (`bisae.metrics.translation`), with `resamples` of the examples drawn from `seed`.

    What slow metrics have found is kept in `folder`.
    """

    metrics: Mapping[str, Any]
    resamples: int
    seed: int
    folder: Path

    def check(self, tasks: Sequence[Task]) -> None:
        """Refused for a metric that cannot score a word in each language translated into, or says itself that it
        knows nothing of one. Slow ones are asked for no score."""
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
                found = f"{type(error).__name__}: {error}"
                raise Refused(name, "...", found) from error

    def scores(self, many: Sequence[Translations]) -> list[dict[str, Score]]:
        """Of each: `loss`, nats per token of the references; `source_gain`, how much lower than after a wrong source
        (the same tokens, but for those at the border of prompt and reference); and each metric.

        A metric that turns out to be unavailable is left out, with a warning.
        """
        weights = [self._weights(len(one.answers)) for one in many]
        found = [_losses(one, weight) for one, weight in zip(many, weights, strict=True)]
        columns = [_columns(one) for one in many]
        for name, metric in self.metrics.items():
            try:
                if isinstance(metric, MeanOfSegments):
                    of_examples = segment_scores(metric, columns, self.folder)
                    about = metric.signature
                    scores = [
                        Score(float(segments.mean()), segments, weight @ segments / weight.sum(1), about)
                        for segments, weight in zip(of_examples, weights, strict=True)
                    ]
                else:
                    scores = [self._score(metric, *parts) for parts in zip(many, columns, weights, strict=True)]
            except MetricUnavailable as error:
                log.warning("%s is left out: %s", name, error)
                continue
            for one, score in zip(found, scores, strict=True):
                one[name] = score
        return found

    def _weights(self, examples: int) -> Int64[np.ndarray, "resample example"]:
        weights = document_weights(examples, self.resamples, self.seed)
        return weights[weights.any(1)].astype(np.int64)  # of few examples a resample may hold none

    def _score(self, metric: Any, translations: Translations, columns: Columns, weights: np.ndarray) -> Score:
        texts = {name: columns[name] for name in metric.features}
        made = metric.compute(**texts, language=translations.task.target_language, weights=weights)
        segments, resampled = (np.array(made[name], np.float64) for name in ("segments", "resampled"))
        return Score(made["score"], segments, resampled, made["signature"])


def _columns(translations: Translations) -> Columns:
    examples = translations.task.examples
    return {
        "sources": [example.source for example in examples],
        "predictions": translations.answers,
        "references": [normalised(example.reference) for example in examples],
    }


def _losses(translations: Translations, weights: Int64[np.ndarray, "resample example"]) -> dict[str, Score]:
    nats, tokens = translations.nats, translations.tokens
    found = {LOSS: (nats, "nats per reference token")}
    if not np.isnan(gain := translations.nats_other - nats).any():
        found[GAIN] = gain, "nats per reference token by which the right source beats a wrong one"
    return {
        name: Score(float(sums.sum() / tokens.sum()), sums / tokens, (weights @ sums) / (weights @ tokens), about)
        for name, (sums, about) in found.items()
    }
