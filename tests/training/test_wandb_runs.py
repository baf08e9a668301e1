import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bisae.cells.cell import Cell
from bisae.lm.model import Checkpoint
from bisae.sae import TopK
from bisae.training.job import Member
from bisae.training.wandb_runs import WandbRuns, axes


def make_runs(folder: Path, mode: str = "offline", upload: bool = False) -> WandbRuns:
    return WandbRuns(mode, "bisae", None, str(folder), upload)


def inspect(run: Path, *options: str) -> str:
    """What `wandb leet` reads in an offline run."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_two_cells_of_one_job_get_a_run_each(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    for name in ("aaa", "bbb"):
        runs.open(name, f"cell {name}", "job", {"layer": 1})
    for name in ("aaa", "bbb"):
        runs.log(name, {"train/fvu": 0.5}, tokens=10)
        runs.finish(name, {"val/fvu": 0.4})
    folders = sorted(f.name for f in (tmp_path / "wandb").glob("offline-run-*"))
    assert [name[-3:] for name in folders] == ["aaa", "bbb"]


def test_a_table_with_missing_integers_and_texts_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = pd.DataFrame(
        {"hash": ["a", "b"], "seed": pd.array([None, 3], "Int64"), "kind": ["none", "en"], "loss": [None, 0.5]}
    )
    runs = make_runs(tmp_path)
    runs.log_report("intervention", str(tmp_path), {}, {"interventions": table}, [], [])
    runs.close()
    assert not warnings(caplog)
    (written,) = tmp_path.glob("wandb/offline-run-*/files/media/table/interventions_*.table.json")
    assert json.loads(written.read_text())["data"][1] == ["b", 3.0, "en", 0.5]


def test_disabled_leaves_nothing(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, "disabled")
    runs.open("aaa", "cell", "job", {})
    runs.log("aaa", {"train/fvu": 0.5}, tokens=10)
    runs.log_cell("aaa", tmp_path)
    runs.finish("aaa", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sae", [{"k": 4, "aux_k": 0}, {"l1": 0.1}])
def test_the_axes_are_flat_and_have_the_same_names_for_every_sae(
    sae: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint("tiny", 512, tmp_path, "w", "t", None, 4, 128)
    settings = {"_target_": "bisae.sae.Any", "name": "any", "latents": 64, "lr": 0.1, "seed": 3, **sae}
    cell = Cell(tmp_path / "x" / ".." / "runs", "tiny", 512, 2, "any", {"layer": 2})
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep 1")
    found = axes(checkpoint, Member(2, 0.1, settings, cell), "job1")
    own = {f"sae_{key}": value for key, value in sae.items() if key != "k"}
    assert found == own | {
        "model": "tiny",
        "parameters": None,
        "d_model": 128,
        "step": 512,
        "lm_tokens": None,
        "layer": 2,
        "sae": "any",
        "latents": 64,
        "k": sae.get("k"),
        "lr": 0.1,
        "seed": 3,
        "job": "job1",
        "sweep": "sweep 1",
        "cell": cell.name,
        "folder": str(tmp_path / "runs" / cell.name),
    }
    monkeypatch.delenv("WANDB_RUN_GROUP")
    assert axes(checkpoint, Member(2, 0.1, settings, cell), "job1")["sweep"] is None


@pytest.mark.slow
@pytest.mark.parametrize("upload", [False, True])
def test_a_cell_is_logged_by_reference_or_for_upload_and_never_copied(
    upload: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "wandb files"))
    cell = Cell(tmp_path / "日本 runs", "tiny", 512, 2, "topk", {})
    cell.write(TopK(d_model=500, latents=500, k=4), "", {}, {})
    runs = make_runs(tmp_path, upload=upload)
    runs.open(cell.run_id, "cell", "job", {"layer": 2})
    runs.log_cell(cell.run_id, cell.folder)
    runs.finish(cell.run_id, {"val/fvu": 0.4})
    copied = [f for f in tmp_path.rglob("*") if f.stat().st_size > 500_000 and not f.is_relative_to(cell.runs)]
    assert (cell.folder / "sae.safetensors").stat().st_size > 1_000_000 and not copied
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = [json.loads(line) for line in inspect(run).splitlines() if '"type":"artifact"' in line]
    artifact = record["artifact"]
    assert (artifact["name"], artifact["type"]) == (f"sae-{cell.run_id}", "sae")
    files = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
    assert files.keys() == {"cell.json", "config.yaml", "sae.json", "sae.safetensors"}
    weights, entry = cell.folder / "sae.safetensors", files["sae.safetensors"]
    assert (entry.get("local_path"), entry.get("ref")) == ((str(weights), None) if upload else (None, weights.as_uri()))
    summary = json.loads(inspect(run, "--summary"))
    assert summary["summary"]["val/fvu"] == 0.4 and summary["config"]["layer"] == 2


class FakeRun:
    """A run of W&B whose method `broken` fails."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.summary: dict[str, float] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def method(*_: Any, **__: Any) -> None:
            self.calls.append(name)
            if name == self.broken:
                raise ConnectionError("no route")

        return method


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "bisae.wandb"]


@pytest.mark.parametrize("place", ["import", "init", "define_metric", "log", "log_artifact", "finish"])
def test_a_failing_wandb_warns_once_and_never_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    import wandb

    run = FakeRun(place)
    monkeypatch.setattr(wandb, "init", lambda **_: run.init() or run)
    if place == "import":
        monkeypatch.setitem(sys.modules, "wandb", None)
    runs = make_runs(tmp_path)
    runs.open("aaa", "cell", "job", {})
    runs.log("aaa", {"train/fvu": 0.5}, tokens=10)
    runs.log("aaa", {"train/fvu": 0.4}, tokens=20)
    runs.log_cell("aaa", tmp_path)
    runs.finish("aaa", {"val/fvu": 0.4})
    runs.close()
    (warning,) = warnings(caplog)
    assert ("ModuleNotFoundError" if place == "import" else "ConnectionError: no route") in warning
    if place == "log_artifact":  # only the artifact is given up
        assert run.calls[-1] == "finish" and run.summary == {"val/fvu": 0.4}


@pytest.mark.parametrize("broken", ["login", "init"])
def test_online_goes_on_offline_where_wandb_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    import wandb

    real, online = wandb.init, list[float]()

    def init(**options: Any) -> Any:
        if options["mode"] == "offline":
            return real(**options)
        online.append(options["settings"].init_timeout)
        raise PermissionError("not your project")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda prompt: broken != "login")
    runs = make_runs(tmp_path, "online")
    for name in ("aaa", "bbb"):
        runs.open(name, "cell", "job", {})
    runs.close()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert online == ([] if broken == "login" else [30]) and runs.mode == "offline"
    (warning,) = warnings(caplog)
    assert "goes on offline" in warning and ("wandb login" if broken == "login" else "not your project") in warning
