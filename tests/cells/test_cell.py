import json
from dataclasses import replace
from pathlib import Path

import pytest

from bisae.cells.cell import Cell
from bisae.sae import TopK, load


def make_cell(runs: Path) -> Cell:
    return Cell(runs, "tiny", 512, 2, "topk", {"layer": 2, "sae": {"k": 4, "lr": 0.001}})


def test_the_folder_is_named_by_model_step_layer_and_the_hash_of_what_changes_the_result(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    assert cell.folder == tmp_path / "tiny" / "step0000512" / "layer02" / f"topk-{cell.hash}"
    reordered = replace(cell, identity={"sae": {"lr": 0.001, "k": 4}, "layer": 2}, runs=tmp_path / "elsewhere")
    assert reordered.hash == cell.hash
    other = replace(cell, identity={"layer": 2, "sae": {"k": 5, "lr": 0.001}})
    assert other.hash != cell.hash


def test_a_written_cell_is_finished_and_its_sae_loads(tmp_path: Path) -> None:
    cell = make_cell(tmp_path)
    assert not cell.finished
    sae = TopK(d_model=6, latents=20, k=4, seed=1)
    cell.write(sae, "a: 1\n", {"val/fvu": 0.25}, {"wandb_run": cell.run_id})
    assert cell.finished and cell.read()["metrics"] == {"val/fvu": 0.25}
    assert (load(cell.folder).W_enc == sae.W_enc).all()
    assert json.loads((cell.folder / "sae.json").read_text())["metadata"]["layer"] == 2
    with pytest.raises(OSError):
        cell.write(sae, "", {}, {})
    assert cell.read()["metrics"] == {"val/fvu": 0.25}


def test_moving_aside_keeps_every_older_cell_and_gives_the_next_another_run(tmp_path: Path) -> None:
    cell, runs = make_cell(tmp_path), set()
    for number in (1, 2):
        runs.add(cell.run_id)
        cell.write(TopK(d_model=6, latents=20, k=4), "", {"val/fvu": number / 10}, {})
        assert cell.move_aside().name.endswith(f".old{number}")
        assert not cell.finished
    assert len(runs | {cell.run_id}) == 3


def test_a_crash_while_writing_leaves_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make_cell(tmp_path)
    monkeypatch.setattr("bisae.cells.cell.write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        cell.write(TopK(d_model=6, latents=20, k=4), "", {}, {})
    assert not cell.finished and not list(cell.folder.parent.iterdir())
