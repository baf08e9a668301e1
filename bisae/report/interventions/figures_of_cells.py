"""The figures of interventions on one LM, by name, as a logger takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bisae.report.interventions.blocks import NONE, Block, blocks, metrics_of, settled


def figures_of_interventions(
    table: pd.DataFrame, languages: Sequence[str], sae: str, recipient: int
) -> dict[str, float | None]:
    """Each metric of the plain LM, and its change under each intervention and control.

    Args:
        table: `interventions.parquet`.
        languages: of the corpus.
        sae: `sae` of the rows that are taken, beside those of the plain LM.
        recipient: the step of the LM.

    Returns:
        `none/<metric>`; `<kind>/<edit>/<metric>_change`, with `_low` and `_high`, and the same of the controls,
        `<metric>_change_random` and so on: the mean of the random draws and where 95 % of such sets lie.
    """
    own = (table["sae"] == sae) & (table["donor_model"] == "")  # not of another LM
    table = settled(table[(table["recipient"] == recipient) & (own | (table["kind"] == NONE))])
    metrics = metrics_of(table, languages)
    figures: dict[str, float | None] = {}
    for block in blocks(table, metrics, languages) if metrics else ():
        for _, row in block.rows.iterrows():
            for metric in (metric.name for metric in metrics):
                if row["kind"] == NONE:
                    figures[f"{NONE}/{metric}"] = _known(row[metric])
                    continue
                control = f"_{row['control']}" if row["control"] else ""
                name = f"{row['kind']}/{_edit(block)}/{metric}_change{control}"
                for end in ("", "_low", "_high"):
                    figures[f"{name}{end}"] = _known(row[f"{metric}_change{end}"])
    return figures


def _edit(block: Block) -> str:
    """Mode and coefficient, and what differs from intervene.py's defaults: add0.3, ablate, add0.3 recipient."""
    axes: Mapping[str, Any] = block.axes
    coefficient = "" if pd.isna(axes["coefficient"]) else f"{axes['coefficient']:g}"
    layers = f"layers {axes['layers']}" if "+" in axes["layers"] else ""
    norm = "recipient" if axes["norm"] == "recipient" else ""
    return " ".join(filter(None, (f"{axes['mode']}{coefficient}", norm, layers, axes["limit"])))


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
