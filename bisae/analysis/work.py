"""What `analyze.py` has to do: which cells, by LM checkpoint, and which of them failed."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bisae.activations.manifest import CacheError
from bisae.analysis.checkpoint import AnalysedText, CheckpointCells
from bisae.analysis.lineage import Place
from bisae.analysis.recipe import Recipe
from bisae.analysis.rules import Rules, name_of
from bisae.cells import FoundCell, find_cells
from bisae.errors import ConfigError
from bisae.sae.store import saved_class
from bisae.terminal import tokens_bar

log = logging.getLogger("bisae.analysis")

# Of one cell: the others are done. The last four are what a cell of another program, or a damaged one, may raise.
MENDABLE = (ConfigError, CacheError, OSError, ValueError, KeyError, TypeError, SafetensorError)


def warn_of_same_weights(cells: Sequence[FoundCell]) -> None:
    """Public ladders have had checkpoints that hold the weights of another step: their curves would stand still."""
    steps: dict[tuple[str, str], set[int]] = {}
    for cell in cells:
        read = cell.identity.get("activations")
        if isinstance(read, Mapping) and "weights" in read:
            steps.setdefault((cell.model, str(read["weights"])), set()).add(cell.step)
    for (model, _), alike in steps.items():
        if len(alike) > 1:
            log.warning("%s: steps %s have the same weights; is each the step it is said to be?", model, sorted(alike))


def chosen_cells(
    runs: Sequence[str], model: object, step: object, layer: object
) -> tuple[list[FoundCell], list[FoundCell], list[str]]:
    """The cells that config key `runs` names, those of them that `only` chooses, and what is damaged or not there.

    ConfigError if there is none.
    """
    cells: dict[Path, FoundCell] = {}
    wrong: list[ConfigError] = []
    for where in runs:
        damaged: list[ConfigError] = []
        try:
            for cell in find_cells(where, Path("runs"), damaged):
                cells[cell.folder.resolve()] = cell
        except ConfigError as error:
            damaged.append(error)
        wrong += damaged
    if not cells:
        raise wrong[0]
    twice = Counter((cell.model, cell.step, cell.layer, cell.hash) for cell in cells.values())
    for place, cell in list(cells.items()):
        if twice[cell.model, cell.step, cell.layer, cell.hash] > 1:
            wrong.append(ConfigError("runs", cell.folder, "the same cell is in another folder too: name one of them"))
            del cells[place]
    chosen = list(cells.values())
    for key, wanted in (("model", model), ("step", step), ("layer", layer)):
        if wanted is not None:
            values = wanted if isinstance(wanted, list) else [wanted]
            there = sorted({getattr(cell, key) for cell in cells.values()})
            if missing := [value for value in values if value not in there]:
                raise ConfigError(f"only.{key}", missing[0], f"no cell of it; there are {there}")
            chosen = [cell for cell in chosen if getattr(cell, key) in values]
    warn_of_same_weights(chosen)
    return list(cells.values()), chosen, [str(error) for error in wrong]


@dataclass(eq=False)
class Work:
    """`groups`: the cells of each LM checkpoint; `chosen`: those to be analysed now; `failures`: what went wrong,
    by the cell's folder."""

    groups: Sequence[tuple[CheckpointCells, Sequence[FoundCell]]]
    chosen: set[Path]
    failures: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def plan(
        cls,
        cells: Sequence[FoundCell],
        chosen: Sequence[FoundCell],
        rules: Rules,
        text: AnalysedText,
        model: Mapping[str, Any] | None,
        corpus: Mapping[str, Any] | None,
        cache: Path,
    ) -> "Work":
        """Group the cells; those whose LM, text or SAE's class cannot be had are failures. No LM is loaded."""
        together: dict[str, list[tuple[Recipe, FoundCell]]] = {}
        work = cls([], {cell.folder for cell in chosen})
        for cell in cells:
            try:
                recipe = Recipe.of(cell, model, corpus, cache)
                rules.check(recipe.corpus.languages)
                saved_class(cell.folder, text.classes)
                key = name_of({"model": cell.model, "step": cell.step, "text": recipe.text(text.split)})
            except MENDABLE as error:
                work.failures[cell.folder] = _message(error)
                continue
            together.setdefault(key, []).append((recipe, cell))
        groups = []
        for members in together.values():
            layers = sorted({cell.layer for _, cell in members})
            groups.append((CheckpointCells(members[0][0], text, rules, layers), [cell for _, cell in members]))
        work.groups = groups
        return work

    def describe(self) -> None:
        """Analyse what is chosen and missing."""
        total, done = sum(len(cells) for _, cells in self.groups), 0
        with tokens_bar("cells", "cells") as progress:
            for group, cells in self.groups:
                for cell in cells:
                    self._describe(group, cell)
                    done += 1
                    progress(done, total)
                group.close()

    def _describe(self, group: CheckpointCells, cell: FoundCell) -> None:
        if cell.folder in self.chosen:
            try:
                group.describe(cell).publish()
            except MENDABLE as error:
                self.failures[cell.folder] = _message(error)

    def places(self) -> list[Place]:
        """Every cell that is analysed by now, also those another process has done; damaged analyses are failures."""
        found = []
        for group, cells in self.groups:
            for cell in cells:
                try:
                    analysis = group.analysis(cell)
                    if analysis.finished:
                        analysis.check()
                        found.append(Place(analysis, group))
                except MENDABLE as error:
                    self.failures[cell.folder] = _message(error)
        return found

    def close(self) -> None:
        """Free what lineage read again."""
        for group, _ in self.groups:
            group.close()


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
