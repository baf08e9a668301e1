"""The blocks of a W&B report of a grid. Panels ask W&B for the runs whenever the report is opened."""

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from bisae.cells.shown import METRICS
from bisae.features.measures.language import MIXED
from bisae.grid.dashboard_runs import IS_CELL, GridRuns, LoggedRun

AXES = {
    "model": "LM",
    "step": "LM step",
    "layer": "layer",
    "sae": "SAE",
    "latents": "latents",
    "k": "k",
    "lr": "learning rate",
    "seed": "seed",
}
TUNED = ("layer", "step", "latents", "k", "lr")  # axes set against FVU
LISTED = 16  # more values than these are only counted
MEAN: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
LINES = 100  # most runs in a line plot
SHARES = (MIXED, "bilingual", "monosemanticity")  # columns of analyze.py's table that every analysis has
LIGHT, DARK = wr.GradientPoint(color="#fde725", offset=0), wr.GradientPoint(color="#440154", offset=100)
WIDE: dict[str, Any] = {"w": 24, "h": 16}


def blocks(grid: GridRuns) -> list[Any]:
    """The blocks: grid, training, final values over LM training, settings against FVU, analyses, interventions."""
    asked = {"sweep": grid.sweep, "model": grid.model}
    cells = [f"Config('{IS_CELL}') >= 1", *(_is(key, value) for key, value in asked.items() if value is not None)]
    return [
        *_about(grid),
        wr.H1("Training"),
        wr.P(f"Against tokens the SAE has read. There is no other loss than FVU; at most {LINES} runs a panel."),
        _panels(grid, "cells", cells, _training()),
        wr.H1("Final values over LM training"),
        wr.P("On held-out text. Colour: layer; in the last grid the width of the LM."),
        *(
            block
            for model in grid.values("model")
            for block in (
                wr.H2(model),
                _panels(grid, model, [*cells, _is("model", model)], _over_steps(grid)),
            )
        ),
        wr.H2("All LMs"),
        _panels(grid, "cells", cells, _compared()),
        wr.H1("Settings"),
        _panels(grid, "cells", cells, [_settings(grid)]),
        *_reported(grid, "Analyses", "cells", grid.analyses),
        *_reported(grid, "Interventions", "", grid.interventions),
    ]


def _about(grid: GridRuns) -> list[Any]:
    of = grid.sweep or f"the project {grid.project}"
    items: list[Any] = []
    for axis, name in AXES.items():
        if values := grid.values(axis):
            listed = ", ".join(map(str, values)) if len(values) <= LISTED else f"{len(values)} values"
            items.append(f"{name}: {listed}")
    return [
        wr.P(f"{len(grid.cells)} sparse autoencoders of {of} when this was written; panels show later ones too."),
        wr.UnorderedList(items),
    ]


def _is(axis: str, value: str) -> str:
    """A filter as text: the library's expressions take `sweep` for an attribute of runs, not for a config key."""
    return f"Config({axis!r}) == {value!r}"


def _panels(grid: GridRuns, name: str, filters: Sequence[str], panels: Sequence[Any]) -> wr.PanelGrid:
    runs = wr.Runset(grid.entity, grid.project, name, filters=" and ".join(filters))
    return wr.PanelGrid(runsets=[runs], panels=list(panels))


def _training() -> list[Any]:
    train = {name.replace("val/", "train/"): label for name, label in METRICS.items()}
    return [
        *(
            wr.LinePlot(f"{label}, mean by layer", "tokens", [name], groupby=wr.Config("layer"), **MEAN)
            for name, label in train.items()
        ),
        *(wr.LinePlot(label, "tokens", [name], max_runs_to_show=LINES) for name, label in train.items()),
    ]


def _over_steps(grid: GridRuns) -> list[Any]:
    shown = dict(METRICS)
    for name in ("val/fvu", "val/dead"):
        shown |= {f"{name}/{language}": f"{METRICS[name]} {language}" for language in grid.languages(name)}
    return [_scatter(label, "step", name, "layer") for name, label in shown.items()]


def _compared() -> list[Any]:
    chosen = {name: METRICS[name] for name in ("val/fvu", "val/dead")}
    return [
        *(_scatter(f"{label} over LM tokens", "lm_tokens", name, "d_model") for name, label in chosen.items()),
        *(
            wr.BarPlot(f"{label} by {axis}", [name], groupby=wr.Config(axis), **MEAN)
            for axis in ("model", "layer")
            for name, label in chosen.items()
        ),
    ]


def _scatter(title: str, x: str, y: str, colour: str) -> wr.ScatterPlot:
    return wr.ScatterPlot(title, wr.Config(x), wr.SummaryMetric(y), wr.Config(colour), gradient=[LIGHT, DARK])


def _settings(grid: GridRuns) -> wr.ParallelCoordinatesPlot:
    """Parallel coordinates of the tuned settings, FVU last; axes that no run has are left out."""
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(axis), AXES[axis]) for axis in TUNED if grid.values(axis)]
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric("val/fvu"), METRICS["val/fvu"]))
    return wr.ParallelCoordinatesPlot(columns, gradient=[LIGHT, DARK], layout=wr.Layout(**WIDE))


def _reported(grid: GridRuns, title: str, charted: str, runs: Sequence[LoggedRun]) -> list[Any]:
    """Tables and pictures of the reports in `runs`, and charts of the table `charted`; empty without runs."""
    if not runs:
        return []
    tables, pictures = (
        list(dict.fromkeys(name for run in runs for name in run.logged(kind))) for kind in ("table-file", "image-file")
    )
    charts = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": charted}},
            chart_name="wandb/scatter/v0",
            chart_fields={"x": "step", "y": share},
            chart_strings={"title": f"{share} over LM steps"},
        )
        for share in SHARES
        if charted in tables
    ]
    panels = [
        *charts,
        *(wr.WeavePanelSummaryTable(table_name=table, layout=wr.Layout(**WIDE)) for table in tables),
        wr.MediaBrowser(num_columns=2, media_keys=pictures, layout=wr.Layout(**WIDE)),
    ]
    ids = f"Metric('ID') in {[run.id for run in runs]}"
    return [
        wr.H1(title),
        wr.P("Of all LMs and sweeps of the project; the newest of each folder: " + ", ".join(run.name for run in runs)),
        _panels(grid, title.lower(), [ids], panels),
    ]
