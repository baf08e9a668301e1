import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bisae.cells.cell import Cell
from bisae.cells.find import FoundCell, find_cells, warn_of_same_weights
from bisae.runtime.errors import Refused
from bisae.sae import TopK


def cell(step: int, identity: Mapping[str, object], model: str = "mine") -> FoundCell:
    return FoundCell(Path(), model, step, 2, "topk", "0", identity, {}, {})


def test_steps_of_one_lm_with_the_same_weights_are_named(caplog: pytest.LogCaptureFixture) -> None:
    a, b = {"activations": {"weights": "a"}}, {"activations": {"weights": "b"}}
    cells = [cell(0, b), cell(20, a), cell(10, a), cell(10, a), cell(30, {}), cell(40, {}), cell(5, b, "other")]
    with caplog.at_level(logging.WARNING):
        warn_of_same_weights(cells)
    (said,) = caplog.messages
    assert said.startswith("mine: steps [10, 20] have the same weights")


def write_cell(runs: Path, model: str = "tiny", step: int = 512, layer: int = 2, sae: str = "topk") -> Cell:
    cell = Cell(runs, model, step, layer, sae, {"layer": layer})
    cell.write(TopK(d_model=4, latents=8, k=2), "", {"val/fvu": step / 1000}, {"wandb_run": cell.run_id})
    return cell


def names(where: str | Path, runs: Path) -> list[str]:
    return [cell.folder.name for cell in find_cells(str(where), runs)]


def test_cells_are_found_below_any_folder_sorted_by_model_step_layer_and_sae(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    a = write_cell(runs, "a", 1000, 10)
    b = [write_cell(runs, "b", step, layer, sae) for step, layer, sae in [(9, 1, "x"), (9, 2, "t"), (10, 1, "a")]]
    sae = write_cell(runs, "b", 9, 1, "a")
    (runs / "b" / "wandb").mkdir()
    assert [cell.folder for cell in find_cells(str(runs), tmp_path)] == [c.folder for c in (a, sae, *b)]
    assert names(runs / "b" / "step0000009", tmp_path) == [c.folder.name for c in (sae, b[0], b[1])]
    (found,) = find_cells(str(a.folder), tmp_path)
    assert found.folder == a.folder and found.hash == a.hash and found.metrics == {"val/fvu": 1.0}
    assert (found.model, found.step, found.layer, found.sae) == ("a", 1000, 10, "topk")
    assert found.identity == {"layer": 10} and found.provenance["wandb_run"] == a.run_id


def test_names_and_globs_are_looked_for_in_the_working_directory_and_then_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs [1]"  # no pattern, whatever it looks like
    far = [write_cell(runs, "tiny", step) for step in (1, 2)]
    write_cell(runs, "tiny", 1, sae="relu")
    near = write_cell(tmp_path / "here", "near")
    monkeypatch.chdir(tmp_path / "here")
    expected = [cell.folder.name for cell in far]
    assert (
        names("tiny/*/*/topk-*", runs) == names(near.runs / ".." / "runs ?1]" / "*/*/*/topk-*", near.runs) == expected
    )
    assert names("**/layer02/topk*", runs) == names("near", runs) == [near.folder.name]
    assert names(far[0].name, runs) == names(far[0].folder, runs) == expected[:1]
    (tmp_path / "here" / "tiny").mkdir()  # holds no cell
    assert len(names("tiny", runs)) == 3


def test_cells_moved_aside_or_still_being_written_are_left_out_unless_named(tmp_path: Path) -> None:
    old = write_cell(tmp_path)
    first_run = old.run_id
    aside = old.move_aside()
    cell = write_cell(tmp_path)
    shutil.copytree(cell.folder, cell.folder.with_name(f".{cell.folder.name}.host-1-abc.tmp"))
    for where in (tmp_path, cell.folder.parent, f"{cell.folder}*", f"{tmp_path}/**"):
        assert names(where, tmp_path) == [cell.folder.name]
    assert names(aside, tmp_path) == names(f"{cell.folder.parent}/*.old?", tmp_path) == [aside.name]
    assert names(first_run, tmp_path) == [aside.name] and names(cell.run_id, tmp_path) == [cell.folder.name]
    assert cell.run_id == f"{first_run}-1"


def test_what_is_not_found_or_damaged_is_an_error_that_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ("nowhere", "*/*", "0123456789ab"):
        with pytest.raises(Refused, match=r"no finished cell: .*runs") as error:
            find_cells(where, tmp_path / "runs")
        assert error.value.field == "cells" and str(tmp_path) in str(error.value) and where in str(error.value)
    cell = write_cell(tmp_path)
    for damage in ("{", "[]", '{"model": "tiny"}'):
        (cell.folder / "cell.json").write_text(damage)
        with pytest.raises(Refused, match=f"{cell.folder}/cell.json: is damaged"):
            find_cells(str(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "analysis", "analysis/abc/features.parquet", "sae.safetensors"])
def test_a_link_out_of_a_cells_folder_is_refused_and_one_within_it_is_not(tmp_path: Path, name: str) -> None:
    cell = write_cell(tmp_path / "runs")
    (tmp_path / "secret").mkdir()
    (cell.folder / "inside").symlink_to("cell.json")
    assert names(str(tmp_path / "runs"), tmp_path) == [cell.folder.name]
    place = cell.folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(tmp_path / "secret")
    with pytest.raises(Refused, match=f"{place} leads out of the cell's folder; put a copy"):
        find_cells(str(tmp_path / "runs"), tmp_path)


@pytest.mark.parametrize("key", ["model", "sae", "hash"])
@pytest.mark.parametrize("value", ["../../elsewhere", "/etc", ".hidden", "", "a/b", "a\\b"])
def test_names_in_a_cell_lead_nowhere_else(tmp_path: Path, key: str, value: str) -> None:
    cell = write_cell(tmp_path)
    about = json.loads((cell.folder / "cell.json").read_text())
    (cell.folder / "cell.json").write_text(json.dumps({**about, key: value}))
    with pytest.raises(Refused, match="is damaged, or no cell's: .* must be a word"):
        find_cells(str(tmp_path), tmp_path)


class FakeArtifact:
    """One whose content is the folder `source`; `source` None is a reference to files of another machine."""

    def __init__(self, type: str, source: Path | None) -> None:
        self.type, self.source = type, source

    def download(self, root: str) -> None:
        if self.source is None:
            raise ValueError("Unable to find file at path")
        shutil.copytree(self.source, root, dirs_exist_ok=True)


def online(monkeypatch: pytest.MonkeyPatch, path: str, folder: Path, artifact: FakeArtifact | None = None) -> None:
    """A W&B with one run, whose cell was written to `folder`."""
    import wandb

    class FakeApi:
        def __init__(self, timeout: int) -> None:
            assert timeout <= 30

        def run(self, asked: str) -> Any:
            if asked != path:
                raise ValueError(f"could not find run {asked}")
            artifacts = [*([artifact] if artifact else []), FakeArtifact("wandb-history", None)]
            return SimpleNamespace(config={"folder": str(folder)}, logged_artifacts=lambda: artifacts)

    monkeypatch.setattr(wandb, "login", lambda prompt: True)
    monkeypatch.setattr(wandb, "Api", FakeApi)


def test_a_run_of_wandb_is_found_in_its_folder_also_when_that_was_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = write_cell(tmp_path / "elsewhere")
    path = f"me/bisae/{cell.run_id}"
    online(monkeypatch, path, cell.folder)
    assert names(path, tmp_path / "runs") == [cell.folder.name]
    aside = cell.move_aside()
    write_cell(tmp_path / "elsewhere")
    assert names(path, tmp_path / "runs") == [aside.name]
    with pytest.raises(Refused, match="could not find run me/other/"):
        find_cells(path.replace("bisae", "other"), tmp_path / "runs")


def test_a_run_of_another_machine_is_downloaded_once_and_only_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, runs = write_cell(tmp_path / "uploaded"), tmp_path / "runs"
    path, there = f"me/bisae/{cell.run_id}", Path("/another/machine/cell")
    for artifact in (None, FakeArtifact("sae", None)):
        online(monkeypatch, path, there, artifact)
        with pytest.raises(Refused, match=r"^cells=me/.*logger.upload=true"):
            find_cells(path, runs)
        assert not list(runs.rglob("*.json"))
    online(monkeypatch, path, there, FakeArtifact("sae", cell.folder))
    (found,) = find_cells(path, runs)
    assert found.hash == cell.hash and (found.folder / "sae.safetensors").is_file()
    online(monkeypatch, "no such run", there)
    assert find_cells(path, runs) == [found]


def test_without_a_login_the_error_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="wandb login"):
        find_cells("me/bisae/0123456789ab", tmp_path)


def test_weights_that_several_saes_may_share_are_told_apart_by_what_reads_them(tmp_path: Path) -> None:
    def encodes_as(sae: dict[str, Any], name: str = "topk", **more: Any) -> dict[str, Any]:
        cell = FoundCell(tmp_path, "m", 1, 1, name, "0", {"sae": sae, "activations": {}, **more}, {}, {})
        return cell.encodes_as

    assert encodes_as({"_target_": "bisae.sae.TopK", "k": 4}) == {}  # bisae trains weights for one SAE
    of_k = [encodes_as({"k": k}, imported="checksum") for k in (4, 8)]
    assert of_k[0] != of_k[1] and of_k[0] != encodes_as({"k": 4}, "raw_topk", imported="checksum")
    assert encodes_as({"_target_": "mine.A"}) != encodes_as({"_target_": "mine.B"}) != {}
