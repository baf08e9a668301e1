import io
from pathlib import Path

import pytest
from rich.console import Console

from bisae.cells.cell import Cell
from bisae.cells.shown import METRICS, cells_of_jobs, show_cells
from bisae.runtime.ranks import JOB
from bisae.sae import TopK


def test_the_table_names_where_cells_are_how_they_differ_and_what_they_score(tmp_path: Path) -> None:
    cells = [Cell(tmp_path, "tiny", 512, 2, "topk", {"sae": {"k": k, "lr": 0.001}}) for k in (4, 8, 16)]
    for cell in cells[:2]:
        cell.write(TopK(d_model=6, latents=20, k=4), "", {name: 0.12345 for name in METRICS}, {})
    console = Console(file=io.StringIO(), width=200)
    show_cells(cells, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].split() == ["model", "step", "layer", "SAE", "k", "FVU", "FVU", "raw", "L0", "cosine", "dead"]
    assert lines[1].split()[:5] == ["tiny", "512", "2", f"topk-{cells[0].hash}", "4"] and "0.1235" in lines[1]
    assert len(lines) == 4 and cells[2].hash not in console.file.getvalue()


def test_cells_of_a_sweep_are_shown_with_what_differs_in_any_part_of_their_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = (
        (0, 1, "topk", {"k": 4, "lr": 0.5}, 7),
        (8, 1, "topk", {"k": 4, "lr": 0.5}, 7),
        (8, 2, "l1", {"lr": 0.5}, 9),
    )
    jobs = []
    for step, layer, name, sae, epochs in places:
        of_the_lm = {"weights": f"weights of {step}", "context": 128}
        identity = {"layer": layer, "sae": sae, "activations": of_the_lm, "data": {"epochs": epochs, "batch": 3}}
        jobs.append(Cell(tmp_path / "runs", "tiny", step, layer, name, identity))
        jobs[-1].write(TopK(d_model=6, latents=20, k=4), "", {metric: 0.1 for metric in METRICS}, {})
    for number, cells in enumerate((jobs[:2], jobs[1:])):
        (tmp_path / str(number)).mkdir()
        monkeypatch.setenv(JOB, str(tmp_path / str(number)))
        show_cells(cells)
    monkeypatch.delenv(JOB)
    found = cells_of_jobs([tmp_path / "0", tmp_path / "1", tmp_path / "failed"])
    assert found == jobs
    capsys.readouterr()
    show_cells(found)
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:7] == ["model", "step", "layer", "SAE", "k", "data.epochs", "FVU"]
    assert rows[0].split()[4:6] == ["4", "7"] and rows[2].split()[4:6] == ["9", "0.1"]


def test_no_folder_and_no_number_is_cut_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    cell = Cell(tmp_path, "tiny", 512, 2, "topk", {"sae": {"k": 4}})
    cell.write(TopK(d_model=6, latents=20, k=4), "", {name: 0.0012345 for name in METRICS}, {})
    show_cells([cell])
    out = capsys.readouterr().out
    assert out.count("0.001234") == len(METRICS) and cell.folder.name in out


def test_brackets_and_colons_in_names_and_paths_are_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    runs = tmp_path / "[exp] lr=1e-3" / "[bold]x[/bold] :100:" / ("long" * 40)
    cells = [Cell(runs, "tiny[red]", 512, 2, "topk[1]", {"sae": {"k": 4, "note": note}}) for note in ("[a]", "[/b]")]
    for cell in cells:
        cell.write(TopK(d_model=6, latents=20, k=4), "", {name: 0.1 for name in METRICS}, {})
    show_cells(cells)
    out = capsys.readouterr().out
    assert f"cells are in {runs}/\n" in out
    for text in ("tiny[red]", f"topk[1]-{cells[0].hash}", "[a]", "[/b]"):
        assert text in out
