"""The table of interventions: one row each, with its metrics, their changes against the plain LM, and intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bisae.intervention.measures import ContinuedPrompts, PerplexityText, TranslatedTasks
from bisae.intervention.results import InterventionResult
from bisae.intervention.specs import PLAIN
from bisae.intervention.swap import SwappedWords
from bisae.metrics import NATS
from bisae.metrics.intervals import Samples, document_weights, percentiles
from bisae.metrics.perplexity import perplexities
from bisae.runtime.naming import name_of
from bisae.translation.scores import Score, Scorer
from bisae.translation.tasks import Task

AXES = {  # in the order of the columns
    "model": str,
    "family": str,  # where the donor names one
    "donor_model": str,  # where it is not the recipient's
    "donor": "Int64",
    "recipient": int,
    "layers": str,
    "layer_by": str,  # what the layer was chosen by; "": given
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
    """A metric's value on all texts and on each resample; `signature`: how translations are scored, else ""."""

    value: float
    resampled: Float64[np.ndarray, " resample"]
    signature: str = ""

    def less(self, other: "Sampled") -> "Sampled":
        return Sampled(self.value - other.value, self.resampled - other.resampled)


UNKNOWN = Sampled(np.nan, np.full(1, np.nan))


@dataclass(frozen=True, eq=False)
class InterventionTable:
    """Makes the table. Measures that were not taken are None; `resamples` of texts are drawn from `seed`."""

    text: PerplexityText | None
    tasks: TranslatedTasks | None
    scorer: Scorer | None
    resamples: int
    seed: int
    swapped: SwappedWords | None = None

    def of(self, rows: Sequence[InterventionResult]) -> tuple[pd.DataFrame, Samples]:
        """The sorted table, and the changes of each metric in each resample by hash of the row.

        Each row of `none` stands before the interventions on the same LM.
        """
        parts = self._texts(rows), self._scores(rows), self._contrasts(rows)
        metrics = [texts | scores | contrasts for texts, scores, contrasts in zip(*parts, strict=True)]
        plain = {name_of(row.identity["lm"]): n for n, row in enumerate(rows) if row.axes["kind"] == PLAIN.kind}
        table, samples = [], {}
        for number, row in enumerate(rows):
            before = plain.get(name_of(row.identity["lm"]), number)
            changes = {
                name: after.less(metrics[before][name]) for name, after in metrics[number].items() if before != number
            }
            columns: dict[str, Any] = {key: row.axes.get(key) for key in AXES}
            stream = row.read(self._measured).attrs
            columns |= {"change": stream.get("size"), "touched": stream.get("touched"), "hash": row.folder.name}
            for name, metric in metrics[number].items():
                for column, sampled in ((name, metric), (f"{name}_change", changes.get(name, UNKNOWN))):
                    low, high = percentiles(sampled.resampled)
                    columns |= {column: sampled.value, f"{column}_low": low, f"{column}_high": high}
                if metric.signature:
                    columns[f"{name}_signature"] = metric.signature
            table.append(columns)
            samples[row.folder.name] = {name: change.resampled for name, change in changes.items()}
        return _sorted(pd.DataFrame(table)), samples

    @property
    def _measured(self) -> PerplexityText | SwappedWords:
        measure = self.text or self.swapped
        assert measure is not None
        return measure

    def _contrasts(self, rows: Sequence[InterventionResult]) -> Iterator[dict[str, Sampled]]:
        for row in rows:
            if self.swapped is None:
                yield {}
                continue
            made = self.swapped.contrasts(row.read(self.swapped), self.resamples, self.seed)
            yield {name: Sampled(float(values[0]), values[1:]) for name, values in made.items()}

    def _texts(self, rows: Sequence[InterventionResult]) -> Iterator[dict[str, Sampled]]:
        for row in rows:
            if self.text is None:
                yield {}
                continue
            losses = self.text.losses(row.read(self.text))
            weights = document_weights(len(losses.nats), self.resamples, self.seed)
            value, drawn = (
                perplexities(losses, counts, self.text.mix) for counts in (np.ones((1, len(losses.nats))), weights)
            )
            found = {f"perplexity_{name}": Sampled(float(value[name][0]), drawn[name]) for name in value}
            nats = {
                f"{NATS}_{name}": Sampled(float(np.log(value[name][0])), np.log(drawn[name]))
                for name in losses.languages
            }
            yield found | nats

    def _scores(self, rows: Sequence[InterventionResult]) -> list[dict[str, Sampled]]:
        if self.tasks is None or self.scorer is None:
            return [{} for _ in rows]
        tasks, by_row = [ids.task for ids in self.tasks.tasks], [dict[str, Score]()] * len(rows)
        written = [self.tasks.answers and row.has(self.tasks) for row in rows]
        unwritten = self.tasks.unwritten, replace(self.scorer, metrics={})
        for measure, scorer in ([(self.tasks, self.scorer)] if self.tasks.answers else []) + [unwritten]:
            numbers = [number for number, has in enumerate(written) if has == measure.answers]
            translations = [task for number in numbers for task in measure.translations(rows[number].read(measure))]
            scores = iter(scorer.scores(translations))
            for number in numbers:
                by_row[number] = by_direction(tasks, [next(scores) for _ in tasks])
        return [
            {name: Sampled(score.value, score.resampled, score.signature) for name, score in of_row.items()}
            for of_row in by_row
        ]


def by_direction(tasks: Sequence[Task], scores: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """Scores by column: `<metric>_<source>_<target>` is the mean over the tasks of that direction.

    Where a direction has several tasks, each of them has a column `<metric>_<source>_<target>/<task>` too.
    """
    ways: dict[str, list[tuple[Task, Mapping[str, Score]]]] = {}
    for task, score in zip(tasks, scores, strict=True):
        ways.setdefault(f"{task.source_language}_{task.target_language}", []).append((task, score))
    columns: dict[str, Score] = {}
    for way, parts in ways.items():
        for metric in parts[0][1]:
            if all(metric in score for _, score in parts):
                columns[f"{metric}_{way}"] = mean_score([score[metric] for _, score in parts])
                if len(parts) > 1:
                    columns |= {f"{metric}_{way}/{task.name}": score[metric] for task, score in parts}
    return columns


def mean_score(scores: Sequence[Score]) -> Score:
    """The plain mean over tasks, as in llm-jp-eval; each task is resampled on its own."""
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
    keys = [
        "model",
        "recipient",
        "_plain",
        "donor_model",
        "donor",
        "layers",
        "sae",
        "mode",
        "norm",
        "coefficient",
        "limit",
    ]
    order = table.sort_values([*keys, "kind", "control", "seed"], kind="stable", na_position="first")
    return order.drop(columns="_plain").reset_index(drop=True).copy()


def generations(
    rows: Sequence[InterventionResult], tasks: TranslatedTasks | None, continued: ContinuedPrompts | None
) -> list[dict[str, Any]]:
    """All generated texts, one mapping each: the row's axes, task, example's number, source, reference, answer, loss.

    `loss` is the reference's, in nats per token. Continuations have the task "continuation", an empty reference and no
    loss. Rows under which no text was generated have no entry.
    """
    entries = []
    for row in rows:
        axes = {**row.axes, "hash": row.folder.name}
        for translated in tasks.translations(row.read(tasks)) if tasks and tasks.answers and row.has(tasks) else ():
            losses = translated.nats / translated.tokens
            answers = zip(translated.task.examples, translated.answers, losses, strict=True)
            for number, (example, answer, loss) in enumerate(answers):
                texts = {"example": number, "source": example.source, "reference": example.reference, "answer": answer}
                entries.append({**axes, "task": translated.task.name, **texts, "loss": float(loss)})
        if continued and continued.prompts and row.has(continued):
            for number, (prompt, answer) in enumerate(row.read(continued).itertuples(index=False)):
                texts = {"example": number, "source": prompt, "reference": "", "answer": answer}
                entries.append({**axes, "task": "continuation", **texts, "loss": None})
    return entries
