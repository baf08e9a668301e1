"""What single features do: rows of intervene.py's table for a feature's page in the browser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bisae.metrics import NATS
from bisae.report.interventions.blocks import BLOCK, RANDOM, Metric, metrics_of, title
from bisae.runtime.errors import Refused

TABLE = "interventions.csv"
ONE = r"ids:\d+$"  # a kind that is one feature, by number


def effects(folder: Path | None) -> Mapping[str, list[dict[str, Any]]]:
    """The changes that interventions with one feature made, by the name of its cell's folder.

    Each has `feature`; `edit`, what was done; `metric`; `value`, `low` and `high`, the change against the plain LM with
    95 % over texts; and `random`, the mean change of `draws` random features, None where there are none.

    Args:
        folder: results of intervene.py; None, or a folder without any: no effects.

    Raises:
        Refused: the table cannot be read (`interventions`).
    """
    path = folder and folder / TABLE
    if not path or not path.exists():
        return {}
    by_cell: dict[str, list[dict[str, Any]]] = {}
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"layers": str, "donor": "Int64"})
        single, metrics = table[table["kind"].str.match(ONE)], _metrics(table)
        for (kind, *axes), rows in single.groupby(["kind", *BLOCK], dropna=False, sort=False):
            edit = title({name: value for name, value in zip(BLOCK, axes, strict=True) if name != "sae"})
            about = {"feature": int(kind.removeprefix("ids:")), "edit": edit}
            drawn = rows[rows["control"] == RANDOM]
            for row in rows[rows["control"].isna()].to_dict("records"):
                found = by_cell.setdefault(row["sae"], [])
                found += [{**about, **_change(row, drawn, metric)} for metric in metrics]
    except (KeyError, ValueError) as error:
        raise Refused("interventions", folder, f"{path} is not a table of intervene.py: {error}") from error
    return by_cell


def _metrics(table: pd.DataFrame) -> list[Metric]:
    """Cross-entropies, then the metrics of translations; perplexity says the same as the first."""
    codes = [name.removeprefix(f"{NATS}_").removesuffix("_change") for name in table if _is_change(str(name))]
    nats = [Metric(f"{NATS}_{code}", "cross-entropy, nats per token,", code, -1, 1, 3) for code in codes]
    return [*nats, *(one for one in metrics_of(table, codes) if not one.name.startswith("perplexity"))]


def _is_change(column: str) -> bool:
    return column.startswith(f"{NATS}_") and column.endswith("_change")


def _change(row: Mapping[str, Any], drawn: pd.DataFrame, metric: Metric) -> dict[str, Any]:
    column = f"{metric.name}_change"
    ends = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
    found = {name: _number(row[end] * metric.factor) for name, end in ends.items()}
    random = _number(drawn[column].mean() * metric.factor) if len(drawn) else None
    return {"metric": metric.title, **found, "random": random, "draws": len(drawn)}


def _number(value: float | int) -> float | None:
    return None if pd.isna(value) else float(value)
