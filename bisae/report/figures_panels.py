"""Draw figures from tables: lines in panels, and densities."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bisae.report.style import BLACK, COLUMN, NAMED, PAGE, style_of

CHARACTERS = 19  # of the title, an inch
MARKERS = 12  # on a line of many points


@dataclass(frozen=True)
class Picture:
    """A figure of lines.

    `data` has one row per point, with the columns row (the label of the y axis; the panels of a row are side by side),
    panel (its title), line (its name), dashed, x, value, and null (dotted), low and high (a band), which may be NaN.
    """

    name: str
    title: str
    note: str  # what bands, dashed and dotted lines are
    x: str
    scale: str  # linear, root, log or step
    data: pd.DataFrame
    dashed: str  # what a dashed line is, if its solid one is drawn too
    dotted: str = "shuffled"


def draw_lines(picture: Picture) -> Figure:
    """Draw lines: as wide as a column if each row has one panel, else as wide as the page.

    Panels of one title stand below each other; a title is left out where the panel above has it.
    """
    data = picture.data
    rows = [(row, panels.groupby("panel", sort=False)) for row, panels in data.groupby("row", sort=False)]
    places = _columns([[title for title, _ in panels] for _, panels in rows])
    wide = 1 + max(column for row in places for column in row.values())
    size = (PAGE, 0.9 + 1.4 * len(rows)) if wide > 1 else (COLUMN, 1.5 + 1.4 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), wide, sharey="row", squeeze=False)
    lines = sorted(data["line"].unique(), key=lambda line: NAMED.get(line, len(NAMED)))
    values = sorted(data["x"].astype(float).unique().tolist())
    lowest: dict[int, tuple[str, Axes]] = {}  # by column: title and axes of the last panel
    firsts: list[Axes] = []  # of each row
    tops: dict[str, float] = {}
    for axes, (row, panels), columns in zip(grid, rows, places, strict=True):
        for title, points in panels:
            axis = axes[columns[title]]
            for (line, dashed), curve in points.groupby(["line", "dashed"], sort=False):
                _draw(axis, curve.sort_values("x"), *style_of(line, lines), bool(dashed))
            _scale(axis, picture.scale, values)
            above = lowest.get(columns[title])
            axis.set_title("" if above and above[0] == title else title)
            lowest[columns[title]] = title, axis
        for column in set(range(wide)) - set(columns.values()):
            axes[column].remove()
        firsts.append(axes[min(columns.values())])
        firsts[-1].tick_params(labelleft=True)
        firsts[-1].set_ylabel(row)
        firsts[-1].set_ylim(bottom=0)
        same = row.partition("\n")[0]  # rows of baselines have the scale of those of trained SAEs
        top = firsts[-1].get_ylim()[1]  # below 0 if all values are
        tops[same] = max(tops.get(same, top), top)
    for first, (row, _) in zip(firsts, rows, strict=True):
        first.set_ylim(0, tops[row.partition("\n")[0]])
    for _, axis in lowest.values():
        axis.set_xlabel(picture.x)
    _title(figure, picture.title, picture.note)
    figure.legend(handles=_legend(picture, lines), loc="outside lower center", ncols=7 if wide > 1 else 2)
    return figure


def _columns(rows: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """The column of each title of each row: that of an earlier row with the title, else the first free one."""
    known: dict[str, int] = {}
    placed = []
    for titles in rows:
        row: dict[str, int] = {}
        for title in sorted(titles, key=lambda title: title not in known):
            row[title] = next(free for free in count(known.get(title, 0)) if free not in row.values())
            known.setdefault(title, row[title])
        placed.append(row)
    return placed


def draw_densities(counts: pd.DataFrame, title: str, note: str, x: str, y: str) -> Figure:
    """Draw counts of features by two scores. Columns: panel, x, y (lower edges of equal bins), value; 0 is white."""
    panels = counts.groupby("panel", sort=False)
    figure = Figure(figsize=(PAGE if len(panels) > 1 else COLUMN, 2.4), layout="constrained")
    scale = LogNorm(1, max(counts["value"].max(), 2))
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (title_, cells) in zip(axes, panels, strict=True):
        grid = cells.pivot(index="y", columns="x", values="value")
        edges = (_edges(labels) for labels in (grid.columns, grid.index))
        mesh = axis.pcolormesh(*edges, grid.where(grid > 0), norm=scale, cmap="cividis_r")
        axis.set(title=title_, xlabel=x)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_ylabel(y)
    figure.colorbar(mesh, ax=axes, label="features")
    _title(figure, title, note)
    return figure


def _draw(axis: Axes, curve: pd.DataFrame, colour: str, marker: str, dashed: bool) -> None:
    shown: dict[str, Any] = {"color": colour, "marker": marker, "markevery": -(-len(curve) // MARKERS)}
    axis.plot(curve["x"], curve["value"], **shown, **_stroke(dashed))
    known = curve["low"].notna()
    alone = curve[known & ~(known.shift(1, fill_value=False) | known.shift(-1, fill_value=False))]
    if len(alone):  # a band would not show them
        axis.vlines(alone["x"], alone["low"], alone["high"], colors=colour, linewidth=0.8)
    if known.sum() > len(alone):
        axis.fill_between(curve["x"], curve["low"], curve["high"], color=colour, alpha=0.2 - 0.1 * dashed, linewidth=0)
    if curve["null"].notna().any():
        axis.plot(curve["x"], curve["null"], **shown, linestyle=":", markersize=1.5, linewidth=0.8)


def _stroke(dashed: bool) -> dict[str, Any]:
    return {"linestyle": "--", "fillstyle": "none", "linewidth": 0.8} if dashed else {"linestyle": "-"}


def _scale(axis: Axes, scale: str, values: list[float]) -> None:
    """Set the scale of the x axis.

    `root`: from 0 to 1, with low values spread. `log`: every value is a tick. `step`: logarithmic, but shows 0; values
    too near to another tick are no ticks.
    """
    if scale == "linear":
        axis.locator_params(axis="x", nbins=5)
        return
    if scale == "root":
        axis.set_xlim(0, 1)
        axis.set_xscale("function", functions=(np.sqrt, np.square))
        axis.set_xticks([0, 0.05, 0.2, 0.5, 1], ["0", ".05", ".2", ".5", "1"])
        return
    ticks = values
    if scale == "step":
        above = [value for value in values if value > 0]
        axis.set_xscale("symlog", linthresh=above[0], linscale=0.5)
        ticks = above[-1:]
        apart = max(4.0, (above[-1] / above[0]) ** 0.25)
        for value in reversed(values):
            if value * apart <= ticks[-1]:
                ticks.append(value)
    else:
        axis.set_xscale("log")
    axis.set_xticks(ticks, [_short(tick) for tick in ticks])
    axis.set_xticks([], minor=True)


def _short(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 10_000 and number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def _title(figure: Figure, title: str, note: str) -> None:
    lines = textwrap.wrap(note, int(figure.get_figwidth() * CHARACTERS))
    figure.suptitle("\n".join([title, *lines]), x=0.01, ha="left")


def _legend(picture: Picture, lines: list[str]) -> list[Line2D]:
    """Name each line once, then explain dashed and dotted ones if the same line is drawn that way too."""
    dashed = picture.data.groupby("line")["dashed"].agg(["any", "all"])
    handles = []
    for line in lines:
        colour, marker = style_of(line, lines)
        handles.append(Line2D([], [], color=colour, marker=marker, label=line, **_stroke(bool(dashed.at[line, "all"]))))
    if (dashed["any"] & ~dashed["all"]).any():
        handles.append(Line2D([], [], color=BLACK, marker="o", label=picture.dashed, **_stroke(True)))
    if picture.data["null"].notna().any():
        handles.append(Line2D([], [], color=BLACK, linestyle=":", label=picture.dotted))
    return handles


def _edges(lower: pd.Index) -> list[float]:
    return [*lower, 2 * lower[-1] - lower[-2]]
