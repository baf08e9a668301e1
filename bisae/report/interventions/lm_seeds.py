"""Interventions over LM seeds: only the mean over LMs trained anew says something of LMs of this recipe."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bisae.metrics.intervals import t_interval
from bisae.report.interventions.blocks import RANDOM, short
from bisae.report.markup import Piece, Table, number

PLACE = ("recipient", "layers", "metric", "kind")  # always shown
FURTHER = ("mode", "norm", "coefficient", "donor_of", "donor", "limit")  # shown where there are several
ITS_OWN = "its own"
ABOUT = "Means over LM seeds, in brackets 95 % (Student), and the number of seeds."


def over_lm_seeds(tidy: pd.DataFrame, columns: Mapping[str, str], form: str) -> Iterator[Table]:
    """A table for each family of several LMs: the means of `columns`, by their heads, printed in `form`.

    `tidy` has the axes of blocks, family, kind, features and metric. LMs without a feature of a kind do not count
    there; rows without any of `columns` are left out.
    """
    tidy = _of_several(tidy, list(columns.values()))
    for family, rows in tidy.groupby("family", sort=False):
        by = [*(axis for axis in FURTHER if rows[axis].nunique(dropna=False) > 1), *PLACE]
        lines = []
        for key, group in rows.groupby(by, sort=False, dropna=False):
            means = group.groupby("model")[[*columns.values()]].mean()
            texts = [*key[:-1], short(str(key[-1]))]
            texts += [_shown(means[column].dropna().to_numpy(float), form) for column in columns.values()]
            lines.append([[Piece(str(text))] for text in texts])
        yield Table(f"Over LM seeds: {family}", [*by, *columns], lines, [ABOUT])


@dataclass(frozen=True, eq=False)
class LMSeeds:
    """Changes of metrics by kind and control ("" or random), of each LM and over the LMs of each family.

    `means`: columns family, kind, control and `<metric>_change` with `_low` and `_high`, 95 % over LMs (Student);
    `lms`: a row for each of their LMs, without the ends. `axes`: what all of them share, as a title has it.
    """

    axes: Mapping[str, Any]
    means: pd.DataFrame
    lms: pd.DataFrame


def changes_by_kind(tidy: pd.DataFrame) -> Iterator[LMSeeds]:
    """The changes that differ only in LM and kind. `tidy`: as of `over_lm_seeds`, with `change`, and `random`."""
    columns = {"change": "", "random": RANDOM}
    tidy = _of_several(tidy, list(columns))
    axes = [*FURTHER, "recipient", "layers"]
    for key, group in tidy.groupby(axes, sort=False, dropna=False):
        by = ["family", "kind", "control"]
        values = pd.concat([group.assign(control=name, shown=group[column]) for column, name in columns.items()])
        each = values.dropna(subset="shown").groupby([*by, "model", "metric"], sort=False)["shown"].mean()
        over = each.groupby([*by, "metric"], sort=False)
        ends = pd.DataFrame({name: t_interval(one.to_numpy(float)) for name, one in over}, ["_low", "_high"]).T
        means = ends.assign(**{"": over.mean().to_numpy()}).rename_axis([*by, "metric"]).unstack("metric")
        means.columns = [f"{metric}_change{end}" for end, metric in means.columns]
        shared = {name: value for name, value in zip(axes, key, strict=True) if value != ITS_OWN}
        yield LMSeeds(shared, means.reset_index(), each.unstack("metric").add_suffix("_change").reset_index())


def _of_several(tidy: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Rows with one of `columns`, of families of several LMs; a donor that is the LM itself is named so in all."""
    if tidy.empty:
        return tidy.reindex(columns=list(dict.fromkeys([*PLACE, *FURTHER, "family", *tidy, *columns])))
    tidy = tidy[tidy["features"].fillna(1) > 0]  # none and the whole stream are no features
    same = {"donor_of": tidy["donor_model"] == tidy["model"], "donor": tidy["donor"] == tidy["recipient"]}
    tidy = tidy.assign(donor_of=tidy["donor_model"])
    tidy = tidy.assign(**{axis: tidy[axis].astype(object).mask(is_same, ITS_OWN) for axis, is_same in same.items()})
    tidy = tidy.reindex(columns=list(dict.fromkeys([*tidy, *columns]))).dropna(subset=columns, how="all")
    return tidy[tidy.groupby("family")["model"].transform("nunique") > 1]


def _shown(values: np.ndarray, form: str) -> str:
    if not len(values):
        return "–"
    low, high = t_interval(values)
    interval = "–" if np.isnan(low) else f"{number(low, form)} to {number(high, form)}"
    return f"{number(values.mean(), form)} ({interval}); {len(values)}"
