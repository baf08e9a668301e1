"""Cells that started from other cells: which are followed as one ladder, and how tables name them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisae.analysis.cells_table import sae_name, settings_of
from bisae.analysis.checkpoint import CheckpointCells
from bisae.analysis.folder import Analysis
from bisae.analysis.lineage import AnalysedCell, ladders
from bisae.cells.find import FoundCell


def place(step: int, hash: str, **more: object) -> AnalysedCell:
    sae = {"latents": 8, "k": 2, "seed": 0, "_target_": "bisae.sae.TopK"}
    identity: Mapping[str, Any] = {"layer": 2, "sae": sae, "activations": {"weights": str(step)}, **more}
    cell = FoundCell(Path(hash), "lm", step, 2, "topk", hash, identity, {}, {})
    return AnalysedCell(Analysis(cell, {}), CheckpointCells.__new__(CheckpointCells))


PLAIN = [place(0, "p0"), place(64, "p64"), place(512, "p512")]
WARM = [place(64, "w64", start="p0"), place(512, "w512", start="w64")]
BACK = [place(64, "b64", start="p512"), place(0, "b0", start="b64")]


def hashes(places: list[AnalysedCell]) -> list[list[str]]:
    return sorted([place.cell.hash for place in ladder] for ladder in ladders(places))


def test_warm_starts_are_a_ladder_with_the_first_ones_start() -> None:
    assert hashes([PLAIN[0], *WARM]) == [["p0", "w64", "w512"]]
    assert hashes([PLAIN[2], *BACK]) == [["b0", "b64", "p512"]]


def test_a_cell_is_in_one_ladder_only() -> None:
    assert hashes([*PLAIN, *WARM, *BACK]) == [["b0", "b64"], ["p0", "p64", "p512"], ["w64", "w512"]]


def test_snapshots_of_as_many_tokens_are_a_ladder_of_their_own() -> None:
    parts = [place(step, f"s{step}", snapshot=1000) for step in (0, 64)]
    assert hashes([*PLAIN, *parts]) == [["p0", "p64", "p512"], ["s0", "s64"]]


def test_tables_name_a_ladder_of_warm_starts_by_one_setting() -> None:
    cells = [place.cell for place in [*PLAIN, *WARM, *BACK]]
    names = dict(zip([cell.hash for cell in cells], settings_of(cells), strict=True))
    assert names["w64"] == names["w512"] == "topk 8 k=2 start=earlier step"
    assert names["b64"] == names["b0"] == "topk 8 k=2 start=later step"
    assert names["p64"] == "topk 8 k=2 start=-"


def test_the_first_sae_of_a_ladder_of_warm_starts_is_of_its_setting_where_none_other_started_afresh() -> None:
    for ladder in ([PLAIN[0], *WARM], [PLAIN[2], *BACK]):
        assert set(settings_of([place.cell for place in ladder])) == {"topk 8 k=2"}


def test_a_row_of_the_table_names_its_setting_and_the_baseline_that_it_is() -> None:
    row = {"setting": "topk 8 k=2", "baseline": "trained"}
    assert sae_name(row) == "topk 8 k=2"
    assert sae_name({**row, "baseline": "soft_frozen_decoder"}) == "topk 8 k=2 soft frozen decoder"
