"""Interventions over LM seeds: only the mean over LMs trained anew says something of LMs of this recipe."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bisae.metrics.intervals import t_interval
from bisae.report.interventions.blocks import short
from bisae.report.markup import Piece, Table, number

PLACE = ("recipient", "layers", "metric", "kind")  # always shown
FURTHER = ("mode", "norm", "coefficient", "donor_of", "donor", "limit")  # shown where there are several
ABOUT = "Means over LM seeds, in brackets 95 % (Student), and the number of seeds."


def over_lm_seeds(tidy: pd.DataFrame, columns: Mapping[str, str], form: str) -> Iterator[Table]:
    """A table for each family of several LMs: the means of `columns`, by their heads, printed in `form`.

    `tidy` has the axes of blocks, family, kind, features and metric. LMs without a feature of a kind do not count
    there; rows without any of `columns` are left out.
    """
    if tidy.empty:
        return
    tidy = tidy[tidy["features"].fillna(1) > 0]  # none and the whole stream are no features
    same = {"donor_of": tidy["donor_model"] == tidy["model"], "donor": tidy["donor"] == tidy["recipient"]}
    tidy = tidy.assign(donor_of=tidy["donor_model"])
    tidy = tidy.assign(**{axis: tidy[axis].astype(object).mask(is_same, "its own") for axis, is_same in same.items()})
    tidy = tidy.reindex(columns=list(dict.fromkeys([*tidy, *columns.values()])))
    for family, rows in tidy.dropna(subset=[*columns.values()], how="all").groupby("family", sort=False):
        if rows["model"].nunique() < 2:
            continue
        by = [*(axis for axis in FURTHER if rows[axis].nunique(dropna=False) > 1), *PLACE]
        lines = []
        for key, group in rows.groupby(by, sort=False, dropna=False):
            means = group.groupby("model")[[*columns.values()]].mean()
            texts = [*key[:-1], short(str(key[-1]))]
            texts += [_shown(means[column].dropna().to_numpy(float), form) for column in columns.values()]
            lines.append([[Piece(str(text))] for text in texts])
        yield Table(f"Over LM seeds: {family}", [*by, *columns], lines, [ABOUT])


def _shown(values: np.ndarray, form: str) -> str:
    if not len(values):
        return "–"
    low, high = t_interval(values)
    interval = "–" if np.isnan(low) else f"{number(low, form)} to {number(high, form)}"
    return f"{number(values.mean(), form)} ({interval}); {len(values)}"
