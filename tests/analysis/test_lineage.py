"""Which features are matched when a ladder grows, or is analysed by other rules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bisae.analysis.checkpoint import CheckpointCells
from bisae.analysis.folder import Analysis
from bisae.analysis.lineage import AnalysedCell, Lineage
from bisae.cells.find import FoundCell
from bisae.features.codes import CodesFolder


class OwnAnalysis(Analysis):
    def read(self) -> dict[str, Any]:
        return {"tokens": 100}

    def features(self) -> pd.DataFrame:
        columns = {"class": ["en", "dead"], "bilingual": [False, False], "monosemanticity": [0.5, np.nan]}
        return pd.DataFrame({"feature": [0, 1], **columns})


class OwnCheckpoint(CheckpointCells):
    def codes(self, cell: FoundCell) -> CodesFolder:
        return CodesFolder(Path(cell.hash), 2)


def ladder(folder: Path, steps: Sequence[int], rule: str = "cross") -> list[AnalysedCell]:
    places = []
    for step in steps:
        identity = {"layer": 2, "sae": {"latents": 2, "seed": 0}, "activations": {"weights": str(step)}}
        cell = FoundCell(folder / str(step), "lm", step, 2, "topk", f"sae{step}", identity, {}, {})
        places.append(AnalysedCell(OwnAnalysis(cell, {"bilingual": rule}), OwnCheckpoint.__new__(OwnCheckpoint)))
    return places


def test_a_ladder_that_grows_matches_only_pairs_with_the_added_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matched: list[tuple[int, int]] = []

    def match(here: AnalysedCell, there: AnalysedCell) -> pd.DataFrame:
        matched.append((here.cell.step, there.cell.step))
        return pd.DataFrame({"feature": [0, 1], "coactivation": [here.cell.step / 4096, 0.0], "cosine": [1.0, 0.0]})

    def both_ways(_: Lineage, *pair: AnalysedCell, both: bool = False) -> list[pd.DataFrame]:
        together.append(both)
        return [match(*pair), *([match(*pair[::-1])] if both else [])]

    together: list[bool] = []
    monkeypatch.setattr(Lineage, "_match", both_ways)
    monkeypatch.setattr(Lineage, "_chance", lambda _, *pair: match(*pair))
    rule = Lineage(tokens=50, least=0.1)

    def newly_matched(*steps: int, of: Lineage = rule, by: str = "cross") -> list[tuple[int, int]]:
        matched.clear()
        of.follow(ladder(tmp_path, steps, by))
        return sorted(matched)

    by_chance = [(512, 64)]
    assert newly_matched(0, 64, 512) == sorted([(0, 64), (0, 512), (64, 512), (512, 0), (512, 64), *by_chance])
    assert together == [True, False, True]  # with the last step in one pass; 64 is not matched in 0
    assert newly_matched(0, 64, 512) == []
    assert newly_matched(0, 64, 512, by="monosemantic") == []
    assert newly_matched(0, 8, 64, 512) == [(0, 8), (8, 64), (8, 512), (512, 8)]
    last = newly_matched(0, 8, 64, 512, 2048)
    assert all(2048 in pair for pair in last) and len(last) == 4 + 4 + 1
    assert len(newly_matched(0, 64, 512, of=Lineage(tokens=40, least=0.1))) == 6
    (tmp_path / "512").rename(tmp_path / "moved")  # without what is kept there
    assert newly_matched(0, 64, 512) == sorted([(512, 0), (512, 64), *by_chance])
