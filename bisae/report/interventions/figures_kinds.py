"""The figures of changes by kind: one panel for each metric, points with intervals for each kind and its controls."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bisae.report.figures_panels import CHARACTERS
from bisae.report.interventions.blocks import RANDOM, Metric, combine, in_order, long
from bisae.report.interventions.lm_seeds import LMSeeds
from bisae.report.style import BLACK, COLUMN, PAGE, style_of

RECIPIENTS = 3  # shown at most
SLOT = 0.11  # inches a point takes
NAMES = {"": "features of the kind", RANDOM: "random: mean, draws", "shuffled": "shuffled", "self": "self"}
MARKERS = dict(zip(NAMES, "os^D", strict=True))
BARS = "Bars: 95 % over documents or examples, paired."
SEEDS = "Bars: 95 % over LM seeds (Student); dots are LMs. Random: the mean of as many features, as active."
DRAWS = " Random: as many features, as active; dots are draws, bars where 95 % of draws lie."


def draw_kinds(table: pd.DataFrame, metrics: Sequence[Metric], languages: Sequence[str], title: str) -> Figure:
    """Draw interventions that differ only in kind, control, draw and recipient; a few recipients if there are many."""
    every = sorted(table["recipient"].unique())
    steps = _spread(every)
    table = table[table["recipient"].isin(steps)]
    rows = in_order(combine(table, metrics).sort_values("recipient"), languages).reset_index(drop=True)
    draws = table[table["control"] == RANDOM]
    note = BARS + DRAWS * bool(len(draws))
    if len(steps) < len(every):
        note += f" {len(steps)} of {len(every)} recipients are shown."
    heading = (f"{title}: change against none", note)
    return _figure(rows, draws, metrics, heading, "recipient", {step: f"into step {step}" for step in steps}, NAMES)


def draw_lm_seeds(seeds: LMSeeds, metrics: Sequence[Metric], languages: Sequence[str], title: str) -> Figure:
    """Draw means over seeds of LMs, and each LM as a dot; families of LMs in colours if there are several."""
    rows = in_order(seeds.means, languages).reset_index(drop=True)
    heading = (f"{title}: change against none, over LM seeds", SEEDS)
    families = {family: family for family in rows["family"].unique()}
    return _figure(rows, seeds.lms, metrics, heading, "family", families, {**NAMES, RANDOM: "random"})


def _figure(
    rows: pd.DataFrame,
    dots: pd.DataFrame,
    metrics: Sequence[Metric],
    heading: Sequence[str],
    by: str,
    groups: Mapping[Any, str],
    controls: Mapping[str, str],
) -> Figure:
    """`rows`: points with intervals, in order from the top; `dots`: what they are means of, below each.

    Colours tell the values of the column `by` apart, which `groups` names, if there are several, else the kinds.
    """
    kinds = list(rows["kind"].unique())
    rows = rows.assign(place=rows.index + rows["kind"].map(kinds.index))  # leaves one place free between two kinds
    names = [long(kind) for kind in kinds]
    coloured = list(groups.values()) if len(groups) > 1 else names
    colours = {name: style_of(name, coloured)[0] for name in coloured}
    rows["colour"] = (rows[by].map(groups) if len(groups) > 1 else rows["kind"].map(long)).map(colours)
    key = ["kind", "control", by]
    dots = dots.merge(rows[[*key, "place", "colour"]], on=key)

    last = rows["place"].max()
    width = PAGE if len(metrics) > 1 else COLUMN
    size, dpi = (width, 1.4 + SLOT * max(last + 1, 4)), rcParams["savefig.dpi"]  # widths of text depend on it
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(panels, metrics, strict=True):
        _frame(axis, metric)
        _draw(axis, rows, dots, metric)
    panels[0].set_yticks(rows.groupby("kind")["place"].mean()[kinds], names)
    panels[0].set_ylim(last + 0.9, -0.9)
    lines = [line for text in heading for line in textwrap.wrap(text, int(width * CHARACTERS))]
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    handles = [Line2D([], [], color=colours[name], label=name) for name in groups.values() if len(groups) > 1]
    used = [control for control in controls if (rows["control"] == control).any()]
    handles += [Line2D([], [], color=BLACK, linestyle="", label=controls[name], **_mark(name)) for name in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=4 if len(metrics) > 1 else 2)
    return figure


def _spread(steps: Sequence[Any]) -> list[Any]:
    """The first, the last, and evenly spaced steps between them."""
    if len(steps) <= RECIPIENTS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (RECIPIENTS - 1))] for place in range(RECIPIENTS)]


def _frame(axis: Axes, metric: Metric) -> None:
    axis.axvline(0, color=BLACK, linewidth=0.6, zorder=1)
    side = "left" if metric.better > 0 else "right"  # towards the points: clear of the next panel's
    axis.annotate("none", (0, 1), xycoords=axis.get_xaxis_transform(), va="bottom", ha=side, fontsize=5)
    axis.set_title(f"{metric.family} {metric.of}", pad=9)
    axis.set_xlabel("better →" if metric.better > 0 else "← better")
    axis.xaxis.set_major_locator(MaxNLocator(3))
    axis.tick_params(axis="y", length=0)
    axis.grid(visible=False, axis="y")


def _draw(axis: Axes, rows: pd.DataFrame, dots: pd.DataFrame, metric: Metric) -> None:
    value, low, high = (f"{metric.name}_change{end}" for end in ("", "_low", "_high"))
    scaled = rows.assign(**{name: rows[name] * metric.factor for name in (value, low, high)})
    axis.hlines(scaled["place"], scaled[low], scaled[high], colors=scaled["colour"], linewidth=0.8)
    for (control, colour), points in scaled.groupby(["control", "colour"], sort=False):
        axis.plot(points[value], points["place"], color=colour, linestyle="", **_mark(control))
    axis.scatter(dots[value] * metric.factor, dots["place"] + 0.35, s=1.5, c=dots["colour"], linewidths=0)


def _mark(control: str) -> dict[str, Any]:
    """The marker of a control; those of controls are hollow."""
    return {"marker": MARKERS[control]} | ({"markerfacecolor": "white"} if control else {})
