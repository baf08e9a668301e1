"""The table of claims about LMs: an LM and its control, with intervals over their seeds, at their last checkpoints.

Features of one cell say what that cell holds; only LMs trained anew say what LMs of this recipe hold.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from bisae.metrics.intervals import difference_interval, t_interval
from bisae.report.averages import metrics_of
from bisae.report.figures_trends import own, with_control
from bisae.report.markup import Piece, Table, number
from bisae.training.baselines import TRAINED

CLAIMS = (
    *("Mixed", "bilingual", "aligned", "aligned_30", "aligned_40", "monosemanticity", "contextual"),
    *("retrieval_stream", "retrieval_codes", "fvu"),
)
ABOUT = (
    "Last checkpoint of each LM; of several SAE seeds the mean. In brackets: 95 % over LM seeds (Student; of a "
    "difference Welch), – where there is one seed; then the number of seeds. Intervals over features, in other tables, "
    "are about those cells only."
)


def over_lm_seeds(labelled: pd.DataFrame) -> tuple[pd.DataFrame, Table] | None:
    """A row for each LM with several seeds, layer, metric and control of its shape; None if no LM has several.

    `labelled`: the table of cells with the columns of `Bins.label`. The columns `mean`, `low`, `high` and `seeds` are
    the LM's, `control_*` the control's, and `difference*` those of the LM minus the control.
    """
    ended = labelled[labelled["final"] & (labelled["SAE"] == TRAINED)]
    rows = [row for lm in own(ended) for row in _rows(with_control(ended, lm), lm)] if len(ended) else []
    tidy = pd.DataFrame(rows)
    return (tidy, _table(tidy)) if rows else None


def _rows(both: pd.DataFrame, lm: str) -> Iterator[dict[str, Any]]:
    several = both[both["lm"] == lm]["model"].nunique() > 1
    controls = [name for name in both["lm"].unique() if name != lm] or [None]
    names = [name.removeprefix("firing_") for name in metrics_of(both) if name.startswith("firing_")]
    claims = [name for name in dict.fromkeys([*names, *CLAIMS]) if name in both]
    for (setting, layer), cells in both.groupby(["setting", "layer"], sort=False) if several else ():
        for control in controls:
            for claim in claims:
                found = {name: _by_seed(cells, name, claim) for name in (lm, control)}
                if len(found[lm]):
                    place = {"setting": setting, "lm": lm, "layer": layer, "metric": claim, "control": control}
                    yield place | _compared(found[lm], found[control])


def _by_seed(cells: pd.DataFrame, lm: str | None, metric: str) -> np.ndarray:
    """The metric of each seed of an LM."""
    return cells[cells["lm"] == lm].groupby("model")[metric].mean().dropna().to_numpy(float)


def _compared(mine: np.ndarray, control: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, values in (("", mine), ("control_", control)):
        low, high = t_interval(values)
        found |= {f"{prefix}mean": values.mean() if len(values) else np.nan, f"{prefix}low": low, f"{prefix}high": high}
        found[f"{prefix}seeds"] = len(values)
    low, high = difference_interval(mine, control)
    return found | {"difference": found["mean"] - found["control_mean"], "difference_low": low, "difference_high": high}


def _table(tidy: pd.DataFrame) -> Table:
    places = [name for name in ("setting", "lm", "layer", "control") if tidy[name].nunique() > 1]
    rows = []
    for row in tidy.to_dict("records"):
        texts = [str(row[name]) for name in (*places, "metric")]
        texts.append(_shown(row["mean"], row["low"], row["high"], row["seeds"]))
        texts.append(_shown(row["control_mean"], row["control_low"], row["control_high"], row["control_seeds"]))
        texts.append(_shown(row["difference"], row["difference_low"], row["difference_high"]))
        rows.append([[Piece(text)] for text in texts])
    header = [*places, "claim", "LM", "control", "LM − control"]
    title = f"Over LM seeds: {', '.join(dict.fromkeys(tidy['lm']))}"
    return Table(title, header, rows, [ABOUT])


def _shown(mean: float, low: float, high: float, seeds: int | None = None) -> str:
    if np.isnan(mean):
        return "–"
    interval = "–" if np.isnan(low) else f"{number(low, '.3f')}, {number(high, '.3f')}"
    return f"{number(mean, '.3f')} ({interval})" + ("" if seeds is None else f"; {seeds}")
