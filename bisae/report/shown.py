"""What analyze.py and intervene.py have found, in the terminal."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Column, Table
from rich.text import Text

from bisae.analysis.cells_table import sae_name
from bisae.features.measures.language import MIXED
from bisae.runtime.console import counted, say, wide

MOST = 20  # rows in the terminal; the report has all


def show_analysis(cells: pd.DataFrame, output: Path | None) -> None:
    """Print a row for each analysed cell, of the table of cells: its features and the shares of their classes."""
    if cells.empty:
        return
    firing = [name for name in cells if name.startswith("firing_") and f"{name}_low" in cells]
    classes = [name for name in (name.removeprefix("firing_") for name in firing) if name != MIXED]
    shares = [name for name in (*classes, MIXED, "bilingual", "aligned", "aligned_null") if name in cells]
    rows = [
        [
            row["model"],
            str(row["step"]),
            str(row["layer"]),
            sae_name(row),
            f"{row['alive']:.0f} of {row['features']:.0f}",
        ]
        + [f"{row[name]:.3f}{_noise(row.get(f'{name}_reseed'))}" for name in (*shares, "monosemanticity")]
        for row in cells.to_dict("records")
    ]
    names = [name.replace("aligned_null", "by chance") for name in shares]
    _show(["model", "step", "layer", "SAE", "alive", *names, "monosemanticity"], rows)
    if output:
        seeds = "; ±: standard deviation over SAE seeds" if "fvu_reseed" in cells else ""
        say(f"{counted(len(cells), 'cell')}; shares are of alive features{seeds}; the report is {output}/index.html")


def _noise(reseed: float | None) -> str:
    return "" if reseed is None or pd.isna(reseed) else f"±{reseed:.3f}"


def show_interventions(rows: pd.DataFrame, output: Path) -> None:
    """Print how many interventions were measured, and how often each ordering of kinds holds."""
    verdicts = output / "tables" / "orderings.csv"
    if verdicts.read_text(encoding="utf-8").strip():
        held = pd.read_csv(verdicts)
        verdict = pd.crosstab(held["ordering"], held["holds"]).reindex(columns=["yes", "no", "undecided"], fill_value=0)
        lines = [[ordering, *map(str, verdict.loc[ordering])] for ordering in held["ordering"].unique()]
        _show(["ordering", *verdict.columns], lines)
    say(f"{counted(len(rows), 'intervention')}; the tables are in {output}/tables/, the figures in {output}/figures/")


def _show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*(Column(name, no_wrap=True) for name in header), box=None, header_style="bold")
    for row in rows[:MOST]:
        table.add_row(*map(Text, row))
    wide().print(table)
    if len(rows) > MOST:
        say(f"... and {len(rows) - MOST} more")
