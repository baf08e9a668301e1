"""The work of `analyze`: the cells to analyse, by LM checkpoint, and those that failed."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from bisae.activations.manifest import CacheError
from bisae.analysis.analysed_text import AnalysedText
from bisae.analysis.checkpoint import CheckpointCells
from bisae.analysis.lineage import AnalysedCell
from bisae.analysis.rules import Rules
from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.runtime.progress import tokens_bar
from bisae.sae.store import saved_class

log = logging.getLogger("bisae.analysis")

# Errors of one cell, after which the other cells are analysed. The last four come from damaged or foreign cells.
MENDABLE = (Refused, CacheError, OSError, ValueError, KeyError, TypeError, SafetensorError)


@dataclass(eq=False)
class AnalysisWork:
    """Cells to analyse.

    `groups`: all cells, by LM checkpoint. `chosen`: the folders of the cells to analyse now. `failures`: the error of
    each cell that failed, by its folder.
    """

    groups: Sequence[tuple[CheckpointCells, Sequence[FoundCell]]]
    chosen: set[Path]
    failures: dict[Path, Exception] = field(default_factory=dict)

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
    ) -> "AnalysisWork":
        """Group the cells by LM checkpoint. Loads no LM.

        A cell whose LM, text or class of SAE is not available becomes a failure.

        Args:
            cells: All cells of the report.
            chosen: The cells to analyse now.
            rules: How features are described.
            text: The text, and where activations and codes are stored.
            model: The config of the LM that replaces the cells' own one, or None.
            corpus: The config of the corpus that replaces the cells' own one, or None.
            cache: The folder for unpacked LMs.
        """
        together: dict[str, list[tuple[Recipe, FoundCell]]] = {}
        work = cls([], {cell.folder for cell in chosen})
        for cell in cells:
            try:
                recipe = Recipe.of(cell, model, corpus, cache)
                rules.check(recipe.corpus)
                saved_class(cell.folder, text.classes)
                key = name_of({"model": cell.model, "step": cell.step, "text": recipe.text(text.split)})
            except MENDABLE as error:
                work.failures[cell.folder] = error
                continue
            together.setdefault(key, []).append((recipe, cell))
        groups = []
        for members in together.values():
            layers = sorted({cell.layer for _, cell in members})
            groups.append((CheckpointCells(members[0][0], text, rules, layers), [cell for _, cell in members]))
        work.groups = groups
        return work

    def describe(self) -> None:
        """Analyse the chosen cells that have no finished analysis."""
        total, done = sum(len(cells) for _, cells in self.groups), 0
        with tokens_bar("cells", "cells") as progress:
            for group, cells in self.groups:
                chosen = [cell for cell in cells if cell.folder in self.chosen]
                done += len(cells) - len(chosen)
                for part in group.together(chosen):
                    self._describe(group, part)
                    done += len(part)
                    progress(done, total)
                group.close()

    def _describe(self, group: CheckpointCells, cells: Sequence[FoundCell]) -> None:
        """Analyse cells together. Where that fails, each half by itself, until it is known of which cells it does."""
        try:
            group.describe(cells)
            for cell in cells:
                group.analysis(cell).publish()
        except MENDABLE as error:
            if len(cells) == 1:
                self.failures[cells[0].folder] = error
                return
            for half in (cells[: len(cells) // 2], cells[len(cells) // 2 :]):
                self._describe(group, half)

    def places(self) -> list[AnalysedCell]:
        """All cells that are analysed by now, also by other processes. A damaged analysis becomes a failure."""
        found = []
        for group, cells in self.groups:
            for cell in cells:
                try:
                    analysis = group.analysis(cell)
                    if analysis.finished:
                        analysis.check()
                        found.append(AnalysedCell(analysis, group))
                except MENDABLE as error:
                    self.failures[cell.folder] = error
        return found

    def close(self) -> None:
        """Free the LMs and the activations."""
        for group, _ in self.groups:
            group.close()
