"""Means over cells, with 95 % intervals and with the same mean under shuffled labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bisae.metrics.intervals import t_interval
from bisae.runtime.errors import Refused

OVER = {  # for each kind of interval, what it generalises over
    "features": "features (those of different cells taken as independent)",
    "documents": "documents of the analysis text (the same ones for all cells)",
    "sae_seeds": "SAE seeds (t distribution; only where every seed has all cells of the mean)",
    "lm_seeds": "LM seeds (t distribution; only where every seed has all cells of the mean)",
}
SEEDS = {"sae_seeds": ("seed", ["model", "step", "layer"]), "lm_seeds": ("model", ["step", "layer", "seed"])}
COLUMNS = [f"{kind}_{side}" for kind in ("features", "documents") for side in ("low", "high")]
IDENTITY = ("parameters", "d_model", "depth", "step", "lm_tokens", "layer", "latents", "k", "seed", "control", "tokens")


def check_kinds(field: str, kinds: Sequence[str]) -> None:
    """Refuse `field`, which holds `kinds` of interval, if one of them does not exist."""
    for kind in set(kinds) - set(OVER):
        raise Refused(field, kind, f"must be one of {', '.join(OVER)}")


def metrics_of(cells: pd.DataFrame) -> list[str]:
    """The columns of the table of cells that are metrics, without their intervals and shuffled values."""
    numbers = cells.select_dtypes("number").columns.difference(IDENTITY, sort=False)
    return [name for name in numbers if not name.endswith(("_low", "_high", "_null", "_reseed"))]


def averages(cells: pd.DataFrame, by: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """The mean of each metric over groups of cells.

    Args:
        cells: The labelled cells (`Bins.label`).
        by: The columns that define the groups.
        metrics: The columns to average.

    Returns:
        One row per group and metric, groups in the order of the cells. The columns are those of `by`, then metric,
        value, null (under shuffled labels), cells (the number of cells that have the metric), and `<kind>_low` and
        `<kind>_high` for each kind in OVER. Unknown values are NaN; a group without the metric has no row.
    """
    key = [*by, "metric"]
    known = pd.concat([_of_metric(cells, metric) for metric in metrics]).dropna(subset="value")
    groups = known.groupby(key, sort=False)
    found = groups[["value", "null", *COLUMNS]].mean(skipna=False).assign(cells=groups.size())
    for side, sign in (("low", -1), ("high", 1)):  # errors of different cells: independent over features, one text
        found[f"features_{side}"] = found["value"] + sign * np.sqrt(found[f"features_{side}"] / found["cells"])
    for kind, (unit, place) in SEEDS.items():
        found[[f"{kind}_low", f"{kind}_high"]] = np.nan
        varied = groups[["lm", "setting", unit]].nunique()
        for group in varied.index[(varied[unit] > 1) & (varied["lm"] == 1) & (varied["setting"] == 1)]:
            seeds = groups.get_group(group).pivot(index=place, columns=unit, values="value")
            interval = t_interval(seeds.mean(skipna=False).to_numpy())  # NaN if a seed lacks a cell
            for side, bound in interval._asdict().items():
                found.at[group, f"{kind}_{side}"] = bound
    return found.reset_index()


def _of_metric(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The values of a metric, with squared errors over features and bounds over documents."""
    columns = [metric, *(f"{metric}_{end}" for end in ("null", "low", "high", "doc_low", "doc_high"))]
    value, null, low, high, *documents = (cells.get(name, pd.Series(np.nan, cells.index)) for name in columns)
    bounds = dict(zip(COLUMNS, ((low - value) ** 2, (high - value) ** 2, *documents), strict=True))
    return cells.assign(metric=metric, value=value, null=null, **bounds)
