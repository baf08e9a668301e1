"""Show the cells of a job in the terminal."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from bisae.cells.cell import Cell
from bisae.runtime.console import say, wide
from bisae.runtime.ranks import JOB, leave
from bisae.runtime.values import flatten_keys

METRICS = {"val/fvu": "FVU", "val/fvu_raw": "FVU raw", "val/l0": "L0", "val/cosine": "cosine", "val/dead": "dead"}
# Keys of a cell's identity that get no column: fingerprints, and what the first columns show.
UNSHOWN = ("layer", "sae._target_", "validation", *(f"activations.{key}" for key in ("weights", "tokenizer", "corpus")))


def show_cells(cells: Sequence[Cell], console: Console | None = None) -> None:
    """Print a row for each finished cell: its LM, step and layer, the settings in which cells differ, its metrics.

    A job of a sweep also writes the list of its cells to a file, which `cells_of_jobs` reads after the sweep.
    """
    described = [{**asdict(cell), "runs": str(cell.runs)} for cell in cells]
    leave(os.environ.get(JOB), "cells.json", json.dumps(described))
    console = console or wide()
    settings, varied = settings_of_cells(cells)
    folder_column = Column("SAE", no_wrap=True, min_width=max(len(f"{cell.sae}-{cell.hash}") for cell in cells))
    names = [key.removeprefix("sae.") for key in varied]
    table = Table("model", "step", "layer", folder_column, *names, *METRICS.values(), box=None, header_style="bold")
    for cell, setting in zip(cells, settings, strict=True):
        if cell.finished:
            metrics = cell.read()["metrics"]
            place = (cell.model, str(cell.step), str(cell.layer), f"{cell.sae}-{cell.hash}")
            values = (f"{metrics[name]:.4g}" for name in METRICS)
            table.add_row(*map(Text, (*place, *(str(setting.get(key, "")) for key in varied), *values)))
    if table.row_count:
        console.print(table)
    for runs in dict.fromkeys(cell.runs for cell in cells):
        say(f"cells are in {runs}/", console=console)


def settings_of_cells(cells: Sequence[Cell]) -> tuple[list[dict[str, object]], list[str]]:
    """The settings of each cell by dotted keys, and the keys in which the cells differ."""
    settings = [dict(flatten_keys(cell.identity)) for cell in cells]
    keys = dict.fromkeys(key for setting in settings for key in setting if key not in UNSHOWN)
    return settings, [key for key in keys if any(other.get(key) != settings[0].get(key) for other in settings)]


def table_of_cells(cells: Sequence[Cell]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the finished cells: place, id of the run, settings in which they differ, all metrics."""
    settings, varied = settings_of_cells(cells)
    found = [(cell, setting, cell.read()) for cell, setting in zip(cells, settings, strict=True) if cell.finished]
    metrics = list(dict.fromkeys(name for *_, content in found for name in content["metrics"]))
    rows = [
        [
            *(cell.model, cell.step, cell.layer, f"{cell.sae}-{cell.hash}", content["provenance"].get("wandb_run")),
            *(setting.get(key) for key in varied),
            *(content["metrics"].get(name) for name in metrics),
        ]
        for cell, setting, content in found
    ]
    return ["model", "step", "layer", "sae", "run", *varied, *metrics], rows


def lines_over_steps(cells: Sequence[Cell]) -> dict[str, dict[str, dict[int, float]]]:
    """By metric and line, the values of the finished cells by step of the LM.

    A line is a layer, and all settings in which the cells differ; lines of a single step are left out.
    """
    settings, varied = settings_of_cells(cells)
    models = {cell.model for cell in cells}
    lines: dict[str, dict[str, dict[int, float]]] = {metric: {} for metric in METRICS}
    for cell, setting in sorted(zip(cells, settings, strict=True), key=lambda pair: pair[0].step):
        if cell.finished:
            own = [f"{key.removeprefix('sae.')}={setting.get(key)}" for key in varied]
            line = " ".join([*([cell.model] if len(models) > 1 else []), f"layer {cell.layer}", *own])
            metrics = cell.read()["metrics"]
            for metric, of in lines.items():
                of.setdefault(line, {})[cell.step] = metrics[metric]
    long = {metric: {line: of[line] for line in of if len(of[line]) > 1} for metric, of in lines.items()}
    return {metric: of for metric, of in long.items() if of}


def cells_of_jobs(folders: Iterable[Path]) -> list[Cell]:
    """Return the cells that the jobs of a sweep wrote to their `folders`, each once."""
    cells = {}
    for file in (folder / "cells.json" for folder in folders):
        for described in json.loads(file.read_text(encoding="utf-8")) if file.exists() else ():
            cell = Cell(**{**described, "runs": Path(described["runs"])})
            cells[cell.folder] = cell
    return list(cells.values())
