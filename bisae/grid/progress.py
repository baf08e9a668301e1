"""The progress of a grid: cells done, running, failed or missing, and the time until all are done."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from bisae.cells.find import FoundCell, find_cells
from bisae.cells.recipe import READING
from bisae.grid.job_record import FOLDER, JobRecord, read_record, runs_now
from bisae.grid.ladders import STARTED, Ladder, PlannedCell
from bisae.lm.model import FINAL
from bisae.runtime.errors import Refused

State = Literal["done", "running", "failed", "missing"]


@dataclass(frozen=True)
class CellState:
    """One SAE of the grid; `detail`: its FVU, the failed job's last error, or where the job runs or stopped."""

    place: PlannedCell
    state: State
    detail: str


@dataclass(frozen=True)
class GridProgress:
    """The progress of a grid.

    Attributes:
        of: the cells by preset.
        running: how many jobs run.
        seconds: until all cells are done; None if unknown yet.
    """

    of: Mapping[str, Sequence[CellState]]
    running: int
    seconds: float | None

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(cell.state for cells in self.of.values() for cell in cells)

    @cached_property
    def failures(self) -> dict[str, list[str]]:
        """The steps and layers at which jobs failed, by their last error."""
        by_error: dict[str, dict[str, None]] = {}
        for preset, cells in self.of.items():
            for cell in cells:
                if cell.state == "failed":
                    by_error.setdefault(cell.detail, {})[
                        f"{preset} step {cell.place.step} layer {cell.place.layer}"
                    ] = None
        return {error: list(where) for error, where in by_error.items()}


def progress_of(ladders: Sequence[Ladder], runs: Path) -> GridProgress:
    """The state of every cell of the ladders, by the cells and job records in the folder `runs`."""
    finished = _finished(runs)
    records = [(record, runs_now(file)) for file, record in _records(runs)]
    of: dict[str, list[CellState]] = {}
    work_done = work_left = 0.0
    for ladder in ladders:
        model = ladder.model
        jobs = [(record, runs) for record, runs in records if record.model == model]
        work = ladder.shape.d_model  # a cell takes time in proportion, about
        for place in ladder.places():
            cell = finished.get(_key(model, place.step, place.layer, place.sae, place.known))
            state = _state(place, cell, jobs, ladder)
            of.setdefault(ladder.preset, []).append(state)
            if state.state != "done":
                work_left += work
            elif any(record.ended and _covers(record, place, ladder) for record, _ in jobs):
                work_done += work
    running = sum(runs for _, runs in records)
    spent = sum(record.seconds for record, _ in records)
    seconds = work_left * spent / work_done / max(1, running) if work_done and spent else None
    return GridProgress(of, running, 0.0 if not work_left else seconds)


def _state(
    place: PlannedCell, cell: FoundCell | None, jobs: Sequence[tuple[JobRecord, bool]], ladder: Ladder
) -> CellState:
    if cell is not None:
        return CellState(place, "done", f"FVU {cell.metrics['val/fvu']:.4g}")
    mine = [(record, runs) for record, runs in jobs if _covers(record, place, ladder)]
    if not mine:
        return CellState(place, "missing", "not started")
    last, _ = max(mine, key=lambda job: job[0].started)
    for record, runs in mine:
        if runs:
            return CellState(place, "running", f"process {record.process} on {record.host}")
    if last.error is not None:
        return CellState(place, "failed", last.error)
    ended = (
        "of another config" if last.ended else f"killed (process {last.process} on {last.host}); goes on where it was"
    )
    return CellState(place, "missing", ended)


def _covers(record: JobRecord, place: PlannedCell, ladder: Ladder) -> bool:
    step = ladder.number(FINAL) if record.checkpoint == FINAL else record.checkpoint
    return step == place.step and ("all" in record.layers or place.layer in record.layers)


def _records(runs: Path) -> list[tuple[Path, JobRecord]]:
    records = ((file, read_record(file)) for file in sorted((runs / FOLDER).glob("*.json")))
    return [(file, record) for file, record in records if record is not None]


def _finished(runs: Path) -> dict[str, FoundCell]:
    """The finished cells, by `_key`."""
    try:
        cells = find_cells(str(runs.absolute()), runs, damaged=[])
    except Refused:
        return {}
    by_key = {}
    for cell in cells:
        reading = {key: cell.identity.get("activations", {}).get(key) for key in READING}
        known = {key: value for key, value in cell.identity.items() if key != "validation"}  # of files: no plan has it
        known |= {"start": STARTED} if "start" in known else {}
        by_key[_key(cell.model, cell.step, cell.layer, cell.sae, {**known, "activations": reading})] = cell
    return by_key


def _key(*parts: object) -> str:
    return json.dumps(parts, sort_keys=True)
