"""Figures of interventions: changes against none by kind and control, over coefficients, checkpoints and LM seeds."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bisae.report.figures_panels import CHARACTERS, Picture, draw_lines
from bisae.report.interventions.blocks import BLOCK, NONE, RANDOM, Metric, combine, in_order, long, side_by_side, title
from bisae.report.interventions.figures_kinds import draw_kinds, draw_lm_seeds
from bisae.report.interventions.lm_seeds import changes_by_kind
from bisae.report.style import BLACK, COLUMN, look, save

PANELS = 5  # side by side
BANDS = "Bands: 95 % over documents or examples, paired."
DASHED = " Dashed: as many random features, as active, mean and where 95 % of draws lie."
X = {
    "coefficient": ("coefficient", "linear"),
    "recipient": ("training step of the recipient", "step"),
}


def draw_interventions(
    table: pd.DataFrame, metrics: Sequence[Metric], languages: Sequence[str], folder: Path
) -> dict[str, Path]:
    """Draw into `folder`; returns each figure's .png by name. No figure without changes, or over a single x."""
    written = {}
    with look():
        for name, figure in _figures(table[table["kind"] != NONE], metrics, languages):
            written[name] = save(figure, folder, name)[0]
    return written


def draw_seeds_of_lms(
    gains: pd.DataFrame, metrics: Sequence[Metric], languages: Sequence[str], folder: Path
) -> dict[str, Path]:
    """Draw the changes of `source_gains` over seeds of LMs, a figure for each family of metrics, as above."""
    written = {}
    for seeds in changes_by_kind(gains):
        shown = [metric for metric in metrics if f"{metric.name}_change" in seeds.means]
        for pack in side_by_side(shown, 1):
            name = _name(f"lm_seeds_{pack[0].family}", seeds.axes)
            heading = ", ".join(filter(None, [*seeds.means["family"].unique(), title(seeds.axes)]))
            with look():
                written[name] = save(draw_lm_seeds(seeds, pack, languages, heading), folder, name)[0]
    return written


def _figures(table: pd.DataFrame, metrics: Sequence[Metric], languages: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    for axes, rows in _groups(table, "recipient"):
        shown = [metric for metric in metrics if rows[f"{metric.name}_change"].notna().any()]
        for pack in side_by_side(shown, PANELS):
            families = "-".join(dict.fromkeys(metric.family for metric in pack))
            yield _name(f"changes_{families}", axes), draw_kinds(rows, pack, languages, title(axes))
    means = in_order(combine(table, metrics), languages)
    for over, (label, scale) in X.items():
        for axes, rows in _groups(means, over):
            points = _points(rows, over, metrics)
            if points["x"].nunique() > 1:
                note = BANDS + DASHED * bool(points["dashed"].any())
                name = _name(f"over_{over}", axes)
                heading = textwrap.fill(title(axes), int(COLUMN * CHARACTERS))
                yield name, with_none(draw_lines(Picture(name, heading, note, label, scale, points, "random")))


def _groups(rows: pd.DataFrame, over: str) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Groups of interventions that differ only in `over`, kind and control, with the axes they share."""
    by = [axis for axis in BLOCK if axis != over]
    for key, group in rows.groupby(by, dropna=False, sort=False):
        yield dict(zip(by, key, strict=True)), group


def _name(prefix: str, axes: Mapping[str, Any]) -> str:
    return "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in (prefix, *title(axes).split(", ")))


def _points(rows: pd.DataFrame, over: str, metrics: Sequence[Metric]) -> pd.DataFrame:
    """Points for `draw_lines`: a row of panels for each family, a line for each kind, random controls dashed."""
    rows = rows[rows["control"].isin(["", RANDOM])]
    same = rows[[]].assign(line=rows["kind"].map(long), dashed=rows["control"] == RANDOM, x=rows[over])
    parts = [same.assign(row="", panel="", null=0.0, value=0.0, low=0.0, high=0.0).head(0)]
    for metric in metrics:
        ends = {"value": "_change", "low": "_change_low", "high": "_change_high"}
        changes = {end: rows[f"{metric.name}{column}"] * metric.factor for end, column in ends.items()}
        label = f"change in {metric.family}\n({'higher' if metric.better > 0 else 'lower'} is better)"
        parts.append(same.assign(row=label, panel=metric.of, null=float("nan"), **changes))
    return pd.concat(parts).dropna(subset="value")


def with_none(figure: Figure) -> Figure:
    """Add a line at 0 (no change) to each panel."""
    for axis in figure.axes:
        axis.autoscale(axis="y")
        axis.axhline(0, color=BLACK, linewidth=0.6, zorder=1)
        axis.annotate("none", (1, 0), xycoords=axis.get_yaxis_transform(), va="center", ha="left", fontsize=5)
    return figure
