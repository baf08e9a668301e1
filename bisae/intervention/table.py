"""The table of interventions: a row each, its metrics with intervals, and their changes against the plain LM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bisae.intervention.measures import PerplexityText, TranslatedTasks
from bisae.intervention.perplexity import perplexity, perplexity_difference
from bisae.intervention.rows import Row
from bisae.intervention.settings import PLAIN
from bisae.translation.scores import Score, Scorer
from bisae.translation.task import Task

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
}


class Value(NamedTuple):
    """With its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class InterventionTable:
    """`tasks` and `scorer` are None where nothing is translated; `resamples` are of documents, from `seed`."""

    text: PerplexityText
    tasks: TranslatedTasks | None
    scorer: Scorer | None
    resamples: int
    seed: int

    def of(self, rows: Sequence[Row]) -> pd.DataFrame:
        """A row each, sorted: `none` before the interventions on the same LM."""
        scores = self._scores(rows)
        losses = [self.text.losses(row.read(self.text)) for row in rows]
        plain = {
            (row.axes["model"], row.axes["recipient"]): number
            for number, row in enumerate(rows)
            if row.axes["kind"] == PLAIN.kind
        }
        table = []
        for number, row in enumerate(rows):
            baseline = plain.get((row.axes["model"], row.axes["recipient"]))
            before = None if baseline in (None, number) else baseline
            drawn = self.text.mix, self.resamples, self.seed
            found = {f"perplexity_{name}": Value(*one) for name, one in perplexity(losses[number], *drawn).items()}
            changes: dict[str, Value] = {}
            if before is not None:
                differences = perplexity_difference(losses[number], losses[before], *drawn)
                changes = {f"perplexity_{name}": Value(*one) for name, one in differences.items()}
            for name, score in scores[number].items():
                found[name] = Value(score.value, *score.interval)
                if before is not None:
                    difference, interval = score.change(scores[before][name])
                    changes[name] = Value(difference, *interval)
            columns: dict[str, Any] = {key: row.axes.get(key) for key in AXES}
            changed = row.read(self.text).attrs
            columns |= {"change": changed.get("size"), "touched": changed.get("touched"), "hash": row.folder.name}
            for name, one in found.items():
                change = changes.get(name, Value(np.nan, np.nan, np.nan))
                columns |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
                columns |= {f"{name}_change": change.value}
                columns |= {f"{name}_change_low": change.low, f"{name}_change_high": change.high}
            table.append(columns)
        return _sorted(pd.DataFrame(table))

    def _scores(self, rows: Sequence[Row]) -> list[dict[str, Score]]:
        if self.tasks is None or self.scorer is None:
            return [{} for _ in rows]
        made = [self.tasks.translations(row.read(self.tasks)) for row in rows]
        scores = iter(self.scorer.scores([one for of_row in made for one in of_row]))
        of_rows = [[next(scores) for _ in of_row] for of_row in made]
        tasks = [ids.task for ids in self.tasks.tasks]
        return [by_direction(tasks, of_tasks) for of_tasks in of_rows]


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
