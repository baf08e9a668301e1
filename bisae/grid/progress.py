"""Which cells of a grid are done, running, failed or missing, and when the rest will be done."""

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
from bisae.grid.ladders import Ladder, PlannedCell
from bisae.lm.model import FINAL
from bisae.runtime.errors import Refused

State = Literal["done", "running", "failed", "missing"]


@dataclass(frozen=True)
class CellState:
    """One SAE of the grid; `said`: its score, the failed job's last error, or where the job runs or stopped."""

    place: PlannedCell
    state: State
    said: str


@dataclass(frozen=True)
class GridProgress:
    """`of`: the cells by preset. `seconds`: until all are done, None where nothing tells yet."""

    of: Mapping[str, Sequence[CellState]]
    running: int  # jobs
    seconds: float | None

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(cell.state for cells in self.of.values() for cell in cells)

    @cached_property
    def failures(self) -> dict[str, list[str]]:
        """The layers of each last error, once each."""
        found: dict[str, dict[str, None]] = {}
        for preset, cells in self.of.items():
            for cell in cells:
                if cell.state == "failed":
                    found.setdefault(cell.said, {})[f"{preset} step {cell.place.step} layer {cell.place.layer}"] = None
        return {error: list(where) for error, where in found.items()}


def progress_of(ladders: Sequence[Ladder], runs: Path) -> GridProgress:
    """What `runs` says of every cell of the ladders."""
    found = _finished(runs)
    records = [(record, runs_now(file)) for file, record in _records(runs)]
    of: dict[str, list[CellState]] = {}
    work_done = work_left = 0.0
    for ladder in ladders:
        model = ladder.model
        jobs = [(record, runs) for record, runs in records if record.model == model]
        work = ladder.shape.d_model  # of one cell: all else is nearly alike
        for place in ladder.places():
            cell = found.get(_key(model, place.step, place.layer, place.sae, place.known))
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
    found = ((file, read_record(file)) for file in sorted((runs / FOLDER).glob("*.json")))
    return [(file, record) for file, record in found if record is not None]


def _finished(runs: Path) -> dict[str, FoundCell]:
    """Cells by what `_key` makes of them."""
    try:
        cells = find_cells(str(runs.absolute()), runs, damaged=[])
    except Refused:
        return {}
    found = {}
    for cell in cells:
        reading = {key: cell.identity.get("activations", {}).get(key) for key in READING}
        known = {key: cell.identity.get(key) for key in ("data", "optimizer", "precision", "layer", "sae")}
        found[_key(cell.model, cell.step, cell.layer, cell.sae, {**known, "activations": reading})] = cell
    return found


def _key(*parts: object) -> str:
    return json.dumps(parts, sort_keys=True)
