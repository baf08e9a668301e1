"""The table of interventions: a row each, its metrics with intervals, and their changes against the plain LM."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bisae.intervention.measures import ContinuedPrompts, PerplexityText, TranslatedTasks
from bisae.intervention.results import InterventionResult
from bisae.intervention.specs import PLAIN
from bisae.metrics.intervals import Samples, document_weights, percentiles
from bisae.metrics.perplexity import perplexities
from bisae.runtime.naming import name_of
from bisae.translation.scores import Score, Scorer
from bisae.translation.tasks import Task

AXES = {  # in the order of the columns
    "model": str,
    "donor": "Int64",
    "recipient": int,
    "layers": str,
    "sae": str,
    "rules": str,
    "kind": str,
    "control": str,
    "mode": str,
    "norm": str,
    "coefficient": float,
    "seed": "Int64",
    "limit": str,
    "features": "Int64",
    "drawn_from": str,
    "widening": float,
}


class Sampled(NamedTuple):
    """A value of all texts, and of each resample of them; `signature` says how translations are scored, else ""."""

    value: float
    resampled: Float64[np.ndarray, " resample"]
    signature: str = ""

    def less(self, other: "Sampled") -> "Sampled":
        return Sampled(self.value - other.value, self.resampled - other.resampled)


UNKNOWN = Sampled(np.nan, np.full(1, np.nan))


@dataclass(frozen=True, eq=False)
class InterventionTable:
    """`tasks` and `scorer` are None where nothing is translated; `resamples` are of documents, from `seed`."""

    text: PerplexityText
    tasks: TranslatedTasks | None
    scorer: Scorer | None
    resamples: int
    seed: int

    def of(self, rows: Sequence[InterventionResult]) -> tuple[pd.DataFrame, Samples]:
        """A row each, sorted: `none` before the interventions on the same LM. And the changes in each resample."""
        metrics = [
            perplexities | scores for perplexities, scores in zip(self._texts(rows), self._scores(rows), strict=True)
        ]
        plain = {name_of(row.identity["lm"]): n for n, row in enumerate(rows) if row.axes["kind"] == PLAIN.kind}
        table, samples = [], {}
        for number, row in enumerate(rows):
            before = plain.get(name_of(row.identity["lm"]), number)
            changes = {
                name: one.less(metrics[before][name]) for name, one in metrics[number].items() if before != number
            }
            columns: dict[str, Any] = {key: row.axes.get(key) for key in AXES}
            changed = row.read(self.text).attrs
            columns |= {"change": changed.get("size"), "touched": changed.get("touched"), "hash": row.folder.name}
            for name, one in metrics[number].items():
                for column, found in ((name, one), (f"{name}_change", changes.get(name, UNKNOWN))):
                    low, high = percentiles(found.resampled)
                    columns |= {column: found.value, f"{column}_low": low, f"{column}_high": high}
                if one.signature:
                    columns[f"{name}_signature"] = one.signature
            table.append(columns)
            samples[row.folder.name] = {name: change.resampled for name, change in changes.items()}
        return _sorted(pd.DataFrame(table)), samples

    def _texts(self, rows: Sequence[InterventionResult]) -> Iterator[dict[str, Sampled]]:
        for row in rows:
            losses = self.text.losses(row.read(self.text))
            weights = document_weights(len(losses.nats), self.resamples, self.seed)
            value, drawn = (
                perplexities(losses, one, self.text.mix) for one in (np.ones((1, len(losses.nats))), weights)
            )
            yield {f"perplexity_{name}": Sampled(float(value[name][0]), drawn[name]) for name in value}

    def _scores(self, rows: Sequence[InterventionResult]) -> list[dict[str, Sampled]]:
        if self.tasks is None or self.scorer is None:
            return [{} for _ in rows]
        tasks, found = [ids.task for ids in self.tasks.tasks], [dict[str, Score]()] * len(rows)
        written = [row.has(self.tasks) for row in rows]
        for measure, scorer in ((self.tasks, self.scorer), (self.tasks.unwritten, replace(self.scorer, metrics={}))):
            mine = [number for number, has in enumerate(written) if has == measure.answers]
            made = [one for number in mine for one in measure.translations(rows[number].read(measure))]
            scores = iter(scorer.scores(made))
            for number in mine:
                found[number] = by_direction(tasks, [next(scores) for _ in tasks])
        return [
            {name: Sampled(one.value, one.resampled, one.signature) for name, one in of_row.items()} for of_row in found
        ]


def by_direction(tasks: Sequence[Task], scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """`<metric>_<source>_<target>`: the mean over the direction's tasks, and each of them where there are several."""
    ways: dict[str, list[tuple[Task, Mapping[str, Score]]]] = {}
    for task, score in zip(tasks, scores, strict=True):
        ways.setdefault(f"{task.source_language}_{task.target_language}", []).append((task, score))
    found: dict[str, Score] = {}
    for way, parts in ways.items():
        for metric in parts[0][1]:
            if all(metric in score for _, score in parts):
                found[f"{metric}_{way}"] = mean_score([score[metric] for _, score in parts])
                if len(parts) > 1:
                    found |= {f"{metric}_{way}/{task.name}": score[metric] for task, score in parts}
    return found


def mean_score(scores: Sequence[Score]) -> Score:
    """The plain mean over tasks, as llm-jp-eval takes it; resamples are drawn in each task on its own."""
    if len(scores) == 1:
        return scores[0]
    least = min(len(score.resampled) for score in scores)
    resampled = np.mean([score.resampled[:least] for score in scores], axis=0)
    segments = np.concatenate([score.segments for score in scores])
    return Score(float(np.mean([score.value for score in scores])), segments, resampled, scores[0].signature)


def _sorted(table: pd.DataFrame) -> pd.DataFrame:
    for name, kind in AXES.items():
        table[name] = table[name].fillna("").astype(str) if kind is str else table[name].astype(kind)
    numbers = ["change", "touched"]
    table[numbers] = table[numbers].astype(float)
    table["_plain"] = table["kind"] != PLAIN.kind
    keys = ["model", "recipient", "_plain", "donor", "layers", "sae", "mode", "norm", "coefficient", "limit"]
    order = table.sort_values([*keys, "kind", "control", "seed"], kind="stable", na_position="first")
    return order.drop(columns="_plain").reset_index(drop=True).copy()


def generations(
    rows: Sequence[InterventionResult], tasks: TranslatedTasks | None, continued: ContinuedPrompts | None
) -> list[dict[str, Any]]:
    """An entry an answer: the row's axes, then task, number of the example, source, reference, answer, and its `loss`.

    The loss is the reference's. Continuations have the task "continuation", no reference and no loss. There is none of
    a row under which nothing was written.
    """
    found = []
    for row in rows:
        axes = {**row.axes, "hash": row.folder.name}
        for made in tasks.translations(row.read(tasks)) if tasks and row.has(tasks) else ():
            answers = zip(made.task.examples, made.answers, made.nats / made.tokens, strict=True)
            for number, (example, answer, loss) in enumerate(answers):
                texts = {"example": number, "source": example.source, "reference": example.reference, "answer": answer}
                found.append({**axes, "task": made.task.name, **texts, "loss": float(loss)})
        if continued and continued.prompts and row.has(continued):
            for number, (prompt, answer) in enumerate(row.read(continued).itertuples(index=False)):
                texts = {"example": number, "source": prompt, "reference": "", "answer": answer}
                found.append({**axes, "task": "continuation", **texts, "loss": None})
    return found
