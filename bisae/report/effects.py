"""What single features do: rows of intervene.py's tables for a feature's page in the browser."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bisae.metrics import NATS
from bisae.report.interventions.blocks import BLOCK, FAMILIES, NO_CLAIM, RANDOM, Metric, combine, metrics_of, title
from bisae.runtime.errors import Refused

TABLE, SWAPS = "interventions.csv", "tables/swap.csv"
ONE = r"ids:\d+$"  # a kind that is one feature, by number


def effects(folders: Sequence[Path]) -> Mapping[str, list[dict[str, Any]]]:
    """The changes that interventions with one feature made, by the name of its cell's folder.

    Each has `feature`; `edit`, what was done; `metric`; `value`, `low` and `high`, the change against the plain LM with
    95 % over texts or pairs of words; and `random`, the mean change of `draws` random features, with `random_low` and
    `random_high`, where 95 % of such features lie; None where there are none. A swap has its share of the whole
    stream's effect too.

    Args:
        folders: results of intervene.py; those without any are passed over. A result in several is taken once.

    Raises:
        Refused: a table cannot be read (`interventions`).
    """
    by_cell: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for folder in folders:
        if not (path := folder / TABLE).exists():
            continue
        try:
            table = _read(path)
            if (single := table[table["kind"].str.match(ONE)]).empty:
                continue
            rows = combine(single, metrics := _metrics(table))
            own = rows[rows["control"] == ""].merge(
                rows[rows["control"] == RANDOM], how="left", on=[*BLOCK, "kind"], suffixes=("", "_random")
            )
            own = own[~own["hash"].str[0].isin(seen)]
            seen.update(own["hash"].str[0])
            for row in own.to_dict("records"):
                found = by_cell.setdefault(row["sae"], [])
                found += [{**_about(row), **_change(row, metric)} for metric in metrics]
            for row in _shares(folder / SWAPS, own):
                by_cell[row["cell"]].append({**_about(row), **_share(row)})
        except (KeyError, ValueError) as error:
            raise Refused("interventions", folder, f"{path} is not a table of intervene.py: {error}") from error
    return by_cell


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"layers": str, "donor": "Int64"})
    return table.assign(control=table["control"].fillna("")) if "control" in table else table


def _metrics(table: pd.DataFrame) -> list[Metric]:
    """Cross-entropies, then the metrics of translations; perplexity says the same as the first."""
    named = rf"{NATS}_([^_/]+)_change|(?:{'|'.join(FAMILIES)})_([^_/]+)_([^_/]+)_change"
    found = [match.groups() for column in table if (match := re.fullmatch(named, str(column)))]
    codes = dict.fromkeys(code for groups in found for code in groups if code)
    read = [code for code, *_ in found if code]
    nats = [Metric(f"{NATS}_{code}", "cross-entropy, nats per token,", code, -1, 1, 3) for code in read]
    return [*nats, *(one for one in metrics_of(table, list(codes)) if not one.name.startswith("perplexity"))]


def _about(row: Mapping[str, Any]) -> dict[str, Any]:
    edit = title({name: row[name] for name in BLOCK if name != "sae"})
    return {"feature": int(row["kind"].removeprefix("ids:")), "edit": edit}


def _change(row: Mapping[str, Any], metric: Metric) -> dict[str, Any]:
    ends = {end: f"{metric.name}_change{end and '_' + end}" for end in ("", "low", "high")}
    found = {end or "value": _number(row[name] * metric.factor) for end, name in ends.items()}
    at_random = {f"random{end and '_' + end}": row[f"{name}_random"] for end, name in ends.items()}
    draws = 0 if pd.isna(row["draws_random"]) else int(row["draws_random"])
    random = {name: _number(value * metric.factor) for name, value in at_random.items()}
    return {"metric": metric.title, **found, **random, "draws": draws}


def _shares(path: Path, own: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of swap.csv that are of these results. They name the SAE only where a layer has several."""
    if not path.exists() or own.empty:
        return []
    by = [axis for axis in (*BLOCK, "kind") if axis != "sae"]
    shares = _read(path)
    # As text: an axis that no row has is read as another type than one that some rows have.
    keys, those = (rows[by].astype(str).assign(place=range(len(rows))) for rows in (own, shares))
    found = keys.merge(those, on=by, suffixes=("", "_share"))
    matched = shares.iloc[found["place_share"]].assign(cell=own["sae"].iloc[found["place"]].to_numpy())
    return matched[matched["sae"].isna() | (matched["sae"] == matched["cell"])].to_dict("records")


def _share(row: Mapping[str, Any]) -> dict[str, Any]:
    of = f"share of the whole stream's effect, {row['of']}"
    said = "the stream has none: no claim" if row["verdict"] == NO_CLAIM else row["verdict"]
    ends = {"value": "share", "low": "share_low", "high": "share_high", "random": "random"}
    found = {end: _number(row.get(name, None)) for end, name in ends.items()}
    draws = 0 if pd.isna(row.get("draws", None)) else int(row["draws"])
    return {
        "metric": of if pd.isna(said) else f"{of} ({said})",
        **found,
        "random_low": None,
        "random_high": None,
        "draws": draws,
    }


def _number(value: float | int | None) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
