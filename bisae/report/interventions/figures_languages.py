"""Figures of languages against languages: the matrix by step and layer, and specificity over steps."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bisae.report.figures_panels import CHARACTERS, Picture, draw_lines
from bisae.report.interventions.blocks import BLOCK, long, short, title
from bisae.report.markup import number
from bisae.report.style import COLUMN, PAGE, look, save

AXES = ("recipient", "layers")  # of a figure
LAYERS = 4  # panels side by side at most
MATRIX = "Rise of the cross-entropy (nats per token) on text of each language (columns) without features (rows)"
OVER_RANDOM = ", less the mean under as many random features."
CURVE = "Bands: 95 % over random draws and documents. Above 0: its own language loses more than under random features."


def draw_languages(matrix: pd.DataFrame, languages: Sequence[str], folder: Path) -> dict[str, Path]:
    """Draw the rows of `languages.csv` into `folder`; returns each figure's .png by name.

    Of each LM with the features of one ladder or one donor a matrix for each step and layer, and, where there are
    several steps, specificity over them.
    """
    if matrix.empty:
        return {}
    # A figure of the checkpoints' own features, one of each other donor, and of each SAE where a layer has several.
    grouped = matrix.assign(donor=matrix["donor"].astype("Int64").mask(matrix["donor"] == matrix["recipient"]))
    written = {}
    with look():
        for _, rows in grouped.groupby([axis for axis in BLOCK if axis not in AXES], dropna=False, sort=False):
            fixed = {axis: rows[axis].iloc[0] for axis in ("model", "mode", "donor_model", "donor", "sae", "limit")}
            for name, figure in _figures(rows, languages, title(fixed)):
                name = "_".join(re.sub(r"[^\w.+-]+", "-", part) for part in (name, *title(fixed).split(", ")))
                written[name] = save(figure, folder, name)[0]
    return written


def _figures(rows: pd.DataFrame, languages: Sequence[str], about: str) -> Iterator[tuple[str, Figure]]:
    yield "languages", _matrices(rows, [code for code in languages if (rows["text"] == code).any()], about)
    curve = rows[(rows["kind"] == rows["text"]) & (rows.get("specificity", pd.Series(np.nan, rows.index)).notna())]
    if curve["recipient"].nunique() > 1:
        points = pd.DataFrame({"row": "specificity (nats)", "panel": "layer " + curve["layers"], "null": np.nan})
        points = points.assign(line=curve["kind"].map(long), dashed=False, x=curve["recipient"])
        ends = {"value": "specificity", "low": "specificity_low", "high": "specificity_high"}
        points = points.assign(**{end: curve[column] for end, column in ends.items()})
        points = points.sort_values("panel", key=lambda panels: panels.str.removeprefix("layer ").map(_depth))
        figure = draw_lines(Picture("specificity", about, CURVE, "training step", "step", points, ""))
        for axis in figure.axes:
            axis.autoscale(axis="y")
            axis.axhline(0, color="black", linewidth=0.6, zorder=1)
        yield "specificity", figure


def _matrices(rows: pd.DataFrame, languages: Sequence[str], about: str) -> Figure:
    """One panel for each step (down) and layer (across), coloured by the rise above that of random features."""
    kinds, steps = list(rows["kind"].unique()), sorted(rows["recipient"].unique())
    every = sorted(rows["layers"].unique(), key=_depth)
    layers = [every[at] for at in np.linspace(0, len(every) - 1, min(LAYERS, len(every))).round().astype(int)]
    beyond = rows.assign(beyond=rows["change"] - rows["random"].fillna(0))
    reach = float(beyond["beyond"].abs().max()) or 1.0
    width = PAGE if len(layers) > 1 else COLUMN
    figure = Figure(figsize=(width, 0.8 + len(steps) * (0.35 + 0.16 * len(kinds))), layout="constrained")
    panels = figure.subplots(len(steps), len(layers), squeeze=False, sharex=True, sharey=True)
    for (step, layer), axis in zip(((s, deep) for s in steps for deep in layers), panels.flat, strict=True):
        here = beyond[(beyond["recipient"] == step) & (beyond["layers"] == layer)]
        axis.set_title(f"step {step}, layer {layer}")
        axis.grid(visible=False)
        axis.set_xticks(range(len(languages)), [short(code) for code in languages])
        axis.set_yticks(range(len(kinds)), [short(kind) for kind in kinds])
        grid = here.pivot_table(index="kind", columns="text", values="beyond").reindex(index=kinds, columns=languages)
        mesh = axis.imshow(grid, cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
        for (down, across), value in np.ndenumerate(grid.to_numpy(float)):
            if np.isfinite(value):
                colour = "white" if abs(value) > 0.6 * reach else "black"
                text = number(value, "+.2f")
                axis.text(across, down, text, ha="center", va="center", fontsize=5.5, color=colour)
    figure.colorbar(mesh, ax=panels, label="nats beyond random")
    fewer = f" {len(layers)} of {len(every)} layers are shown." * (len(layers) < len(every))
    note = textwrap.wrap(MATRIX + OVER_RANDOM + fewer, int(width * CHARACTERS))
    figure.suptitle("\n".join([about, *note]), x=0.01, ha="left")
    return figure


def _depth(layers: str) -> tuple[int, ...]:
    """The layers of a row, "2" or "10+12", as numbers that sort."""
    return tuple(map(int, layers.split("+")))
