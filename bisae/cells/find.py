"""Find finished cells by folder, glob or W&B run."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from glob import escape, glob
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from bisae.runtime.atomic import atomic_folder
from bisae.runtime.errors import Refused

log = logging.getLogger("bisae.analysis")
OLD = re.compile(r"\.old\d+")  # Cell.move_aside
# entity/project/, and Cell.run_id or an id that W&B gave under its agent
RUN = re.compile(r"([^/]+/[^/]+/)?([0-9a-f]{12}(?:-\d+)?|[0-9a-z]{8})")


@dataclass(frozen=True)
class FoundCell:
    """The content of the `cell.json` in `folder`; the folder may have been moved since it was written."""

    folder: Path
    model: str
    step: int
    layer: int
    sae: str
    hash: str
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]
    metrics: Mapping[str, float]

    @property
    def name(self) -> str:
        """Path below `runs`, as of a `bisae.cells.cell.Cell`: model, step, layer, SAE."""
        return f"{self.model}/step{self.step:07d}/layer{self.layer:02d}/{self.sae}-{self.hash}"

    @property
    def hook(self) -> str | None:
        """The part of the LM's decoder block that the SAE reads; None: the residual stream."""
        hook: str | None = self.identity["activations"].get("hook")
        return hook

    @property
    def encodes_as(self) -> dict[str, Any]:
        """Settings that change the codes of the same weights; empty for weights that bisae trained.

        Imported weights may come with several k, and a user's weights may belong to several classes.
        """
        sae = self.identity["sae"]
        trained = "imported" not in self.identity and str(sae.get("_target_", "bisae.")).startswith("bisae.")
        return {} if trained else {"kind": self.sae, "settings": sae}


def find_cells(where: str, runs: Path, damaged: list[Refused] | None = None) -> list[FoundCell]:
    """Return the finished cells that `where` names, sorted by model, step, layer and SAE.

    Cells that `force` moved aside (`*.old1`) are found by run id, or if the last part of `where` contains `.old`.

    Args:
        where: A cell's folder, a folder above cells, or a glob of such folders, in the working directory or else in
            `runs`. Or the id of a W&B run: of a cell below `runs` or, as entity/project/id, of a run on W&B's server.
        runs: Folder of cells.
        damaged: List that collects the errors of damaged cells; None to raise the first one.

    Raises:
        Refused: `cells` names no finished cell, or a damaged `cell.json`.
    """
    cells, run = _named(where, runs, damaged), RUN.fullmatch(where)
    if run and not cells:
        cells = _of_run(run[2], runs.rglob("cell.json"))
        if run[1] and not cells and not any((base / run[1]).is_dir() for base in (Path(), runs)):
            cells = _from_wandb(where, run[2], runs)
    if not cells and not damaged:
        raise Refused(
            "cells",
            where,
            f"no finished cell: no such folder or glob in {Path.cwd()} or {runs}, nor the id of a W&B run of a cell "
            f"below {runs}; W&B itself is asked for entity/project/id",
        )
    return sorted(cells, key=lambda cell: (cell.model, cell.step, cell.layer, cell.sae, cell.folder))


def _named(where: str, runs: Path, damaged: list[Refused] | None) -> list[FoundCell]:
    """Cells at or below the folder or glob `where`, in the first of the two places that has any."""
    where = os.path.expanduser(where)
    aside = ".old" in Path(where).name
    for base in (Path(), runs):
        matches = [where] if (base / where).is_dir() else glob(where, root_dir=base, recursive=True)
        files = {file for match in matches for file in (base / match).rglob("cell.json") if _whole(file)}
        cells = []
        for file in files:
            if aside or not OLD.search(file.parent.name):
                try:
                    cells.append(_read(file))
                except Refused as error:
                    if damaged is None:
                        raise
                    damaged.append(error)
        if cells:
            return cells
    return []


def _of_run(run: str, files: Iterable[Path]) -> list[FoundCell]:
    def has_it(cell: FoundCell) -> bool:
        return run in (cell.provenance.get("wandb_run"), *cell.provenance.get("wandb_runs_before", ()))

    return [cell for cell in map(_read, filter(_whole, files)) if has_it(cell)]


def _from_wandb(path: str, run: str, runs: Path) -> list[FoundCell]:
    """Return the cell of an online run: from the folder that the run names, else downloaded into `runs`."""
    try:
        import wandb

        if not wandb.login(prompt=False):  # Api would ask and wait
            raise ConnectionError("not logged in; run `wandb login`")
        online = wandb.Api(timeout=10).run(path)
        folder = Path(online.config["folder"])
        # The cell may have been moved aside, with another one in its place.
        if cells := _of_run(run, folder.parent.glob(f"{escape(folder.name)}*/cell.json")):
            return cells
        artifact = [artifact for artifact in online.logged_artifacts() if artifact.type == "sae"][-1]
        with atomic_folder(runs / "downloaded" / run) as temporary:
            artifact.download(root=str(temporary))
        return [_read(runs / "downloaded" / run / "cell.json")]
    except Exception as error:  # whatever W&B raises
        remedy = "copy the cell's folder to this machine, or train with logger.upload=true"
        raise Refused("cells", path, f"not from W&B ({type(error).__name__}: {error}); {remedy}") from error


def _whole(file: Path) -> bool:
    """True unless the cell is still being written: then it lies in a hidden folder."""
    return not file.parent.name.startswith(".")


def _read(file: Path) -> FoundCell:
    try:
        cell = FoundCell(folder=file.parent, **json.loads(file.read_text(encoding="utf-8")))
        for name in fields(FoundCell):
            value, kind = getattr(cell, name.name), get_type_hints(FoundCell)[name.name]
            if not isinstance(value, get_origin(kind) or kind) or isinstance(value, bool):
                raise ValueError(f"{name.name} is {value!r}")
        for word in (cell.model, cell.sae, cell.hash):  # they name files
            if not re.fullmatch(r"\w[^/\\\0]*", word):
                raise ValueError(f"{word!r} must be a word")
        _check_links(file.parent)
    except (ValueError, TypeError) as error:
        raise Refused("cells", file, f"is damaged, or no cell's: {error}") from error
    return cell


def _check_links(folder: Path) -> None:
    """Refuse links out of a cell: it may come from anybody, and must not make us read or write other files."""
    home = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise ValueError(f"{path} leads out of the cell's folder; put a copy of what it names in its place")


def chosen_cells(
    runs: Sequence[str], model: object, step: object, layer: object, base: Path = Path("runs")
) -> tuple[list[FoundCell], list[FoundCell], list[str]]:
    """Find the cells that `runs` name, and choose some of them.

    Args:
        runs: Folders, globs or W&B ids, as `where` of `find_cells`.
        model, step, layer: Value, or list of values, of the chosen cells; None for all.
        base: Where they are looked for, if not in the working directory.

    Returns:
        All cells, the chosen cells, and a message for each cell that is damaged or missing.

    Raises:
        Refused: `cells` names no cell, or no cell has a chosen `model`, `step` or `layer`.
    """
    cells: dict[Path, FoundCell] = {}
    wrong: list[Refused] = []
    for where in runs:
        damaged: list[Refused] = []
        try:
            for cell in find_cells(where, base, damaged):
                cells[cell.folder.resolve()] = cell
        except Refused as error:
            damaged.append(error)
        wrong += damaged
    if not cells:
        raise wrong[0]
    twice = Counter((cell.model, cell.step, cell.layer, cell.hash) for cell in cells.values())
    for place, cell in list(cells.items()):
        if twice[cell.model, cell.step, cell.layer, cell.hash] > 1:
            wrong.append(Refused("cells", cell.folder, "the same cell is in another folder too: name one of them"))
            del cells[place]
    chosen = list(cells.values())
    for field, wanted in (("model", model), ("step", step), ("layer", layer)):
        if wanted is not None:
            values = wanted if isinstance(wanted, list) else [wanted]
            existing = sorted({getattr(cell, field) for cell in cells.values()})
            if missing := [value for value in values if value not in existing]:
                raise Refused(field, missing[0], f"no cell of it; there are {existing}")
            chosen = [cell for cell in chosen if getattr(cell, field) in values]
    warn_of_same_weights(chosen)
    return list(cells.values()), chosen, [str(error) for error in wrong]


def warn_of_same_weights(cells: Sequence[FoundCell]) -> None:
    """Warn of steps with the same weights: public series of checkpoints have had such faults."""
    steps: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        read = cell.identity.get("activations")
        if isinstance(read, Mapping) and "weights" in read:
            steps.setdefault((cell.model, str(read["weights"])), set()).add(cell.step)
    for (model, _), alike in steps.items():
        if len(alike) > 1:
            log.warning(
                "%s: steps %s have the same weights; is each step the right one?",
                model,
                sorted(alike),
            )
