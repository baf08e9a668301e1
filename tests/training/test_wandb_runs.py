import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from bisae.cells.cell import Cell
from bisae.cells.find import FoundCell, find_cells
from bisae.sae import TopK
from bisae.training.cell_runs import axes, run_name
from bisae.training.loggers import CellLoggers
from bisae.training.wandb_runs import WandbRuns
from tests.killed import killing


def make_runs(folder: Path, mode: str = "offline", upload: bool = False) -> WandbRuns:
    return WandbRuns(mode, "bisae", None, str(folder), upload)


def inspect(run: Path, *options: str) -> str:
    """What `wandb leet` reads in an offline run."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def inspected(run: Path, *options: str) -> str:
    """The same of a run whose file may end within a record."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *options, str(run)]
    return subprocess.run(command, capture_output=True, text=True).stdout


def test_two_cells_of_one_job_get_a_run_each(tmp_path: Path) -> None:
    runs = make_runs(tmp_path)
    for name in ("aaa", "bbb"):
        runs.open(name, f"cell {name}", "job", {"layer": 1})
    for name in ("aaa", "bbb"):
        runs.log(name, {"train/fvu": 0.5}, tokens=10)
        runs.finish(name, {"val/fvu": 0.4})
    folders = sorted(f.name for f in (tmp_path / "wandb").glob("offline-run-*"))
    assert [name[-3:] for name in folders] == ["aaa", "bbb"]


KILLS_THE_SERVICE = """
import os, signal, subprocess, sys, time
from bisae.training.wandb_runs import WandbRuns
from tests.killed import killing

runs = WandbRuns("offline", "bisae", None, sys.argv[1], False)
for run in ("aaa", "bbb"):
    runs.open(run, run, "job", {"layer": 1})
    for tokens in range(40):
        runs.log(run, {"train/fvu": 0.5}, tokens)
listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
(service,) = [int(line.split()[0]) for line in listed.stdout.splitlines() if "wandb-core" in line]
os.kill(service, signal.SIGTERM)
os.waitpid(service, 0)
time.sleep(1)  # W&B's folders are named by the second
for tokens in range(40, 43):
    runs.log("aaa", {"train/fvu": 0.4}, tokens)
runs.close()
"""


@pytest.mark.slow
def test_a_clusters_sigterm_to_all_processes_of_a_job_costs_no_row(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS_THE_SERVICE, str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # of this process
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    for run, count in (("aaa", 43), ("bbb", 40)):
        killed, last = sorted(tmp_path.glob(f"wandb/offline-run-*-{run}"))
        lines = [line for part in (killed, last) for line in inspected(part).splitlines()]
        rows = [json.loads(line)["history"]["item"] for line in lines if '"type":"history"' in line]
        assert [row["tokens"] for row in rows] == list(range(count))
        assert json.loads(inspected(last, "--summary"))["summary"]["tokens"] == count - 1


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
    lm = {"parameters": None, "d_model": 128, "lm_tokens": None}
    settings = {"_target_": "bisae.sae.Any", "name": "any", "latents": 64, "lr": 0.1, "seed": 3, **sae}
    cell = Cell(tmp_path / "x" / ".." / "runs", "tiny", 512, 2, "any", {"layer": 2})
    monkeypatch.setenv("WANDB_RUN_GROUP", "sweep 1")
    found = axes(cell, settings, lm, "job1")
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
    assert axes(cell, settings, lm, "job1")["sweep"] is None


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
        self.id, self.broken = "aaa", broken
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


def found_cell(folder: Path, runs: str = "runs", run: str = "aaa") -> FoundCell:
    """A finished cell below `folder`, as an analysis finds it."""
    identity = {"layer": 2, "sae": {"_target_": "bisae.sae.TopK", "latents": 4, "k": 2, "lr": 0.1, "seed": 3}}
    cell = Cell(folder / runs, "tiny", 512, 2, "topk", identity)
    config = "layer: [1, 2]\nsae: {name: topk, k: [2, 4]}\ndata: {seed: 7}\n"
    cell.write(TopK(d_model=3, latents=4, k=2), config, {"val/fvu": 0.4}, {"wandb_run": run})
    (found,) = find_cells(str(cell.folder), folder)
    return found


LM = {"parameters": 9, "d_model": 3, "lm_tokens": 8}


@pytest.mark.slow
@pytest.mark.parametrize("trained_here", [True, False])
def test_an_analysis_adds_to_a_cells_run_once_and_each_part_has_all_there_is(
    trained_here: bool, tmp_path: Path
) -> None:
    cell = found_cell(tmp_path)
    if trained_here:
        training = make_runs(tmp_path / "runs")
        training.open("aaa", "a name", "sweep 1", {"layer": 2, "config": {"data": {"seed": 7}}})
        training.log("aaa", {"train/fvu": 0.5}, tokens=10)
        training.finish("aaa", {"val/fvu": 0.4})
    for figures in (
        {"analysis/Mixed": 0.2, "analysis/aligned": None},
        {"analysis/Mixed": 0.2},
        {"intervention/a": 1.0},
    ):
        time.sleep(1.1)  # the folder of a run has its second in its name
        make_runs(tmp_path / "analysis").add(cell, LM, figures)
    first, last = (json.loads(inspect(run, "--summary")) for run in sorted(tmp_path.glob("analysis/wandb/offline-*")))
    assert "intervention/a" not in first["summary"] and first["run_id"] == last["run_id"] == "aaa"
    expected = {"val/fvu": 0.4, "analysis/Mixed": 0.2, "intervention/a": 1.0}
    assert last["summary"].items() >= (expected | ({"train/fvu": 0.5, "tokens": 10} if trained_here else {})).items()
    assert last["config"]["config"]["data"]["seed"] == 7 and last["config"]["layer"] == 2
    assert last["name"] == ("a name" if trained_here else f"tiny step512 layer2 topk k2 n4 lr0.1 seed3 {cell.hash[:6]}")
    if not trained_here:
        assert last["config"]["config"]["sae"]["k"] == 2 and last["config"]["config"]["layer"] == 2
        assert (last["config"]["parameters"], last["config"]["sweep"]) == (9, None)


def test_a_disabled_logger_and_a_cell_without_a_run_add_nothing(tmp_path: Path) -> None:
    make_runs(tmp_path / "w", "disabled").add(found_cell(tmp_path), LM, {"analysis/Mixed": 0.2})
    make_runs(tmp_path / "w").add(found_cell(tmp_path, run="", runs="other"), LM, {"analysis/Mixed": 0.2})
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_wandb_sync_goes_on_in_a_cells_run_with_what_an_analysis_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a stand-in for the server: W&B asks it for the run before each part, in the order of their start."""
    from tests.grid.wandb_stand_in import StandIn

    cell, runs = found_cell(tmp_path), make_runs(tmp_path)
    runs.open("aaa", "a name", "sweep 1", {"layer": 2})
    runs.log("aaa", {"train/fvu": 0.5}, tokens=10)
    runs.finish("aaa", {"val/fvu": 0.4})
    time.sleep(1.1)
    make_runs(tmp_path).add(cell, LM, {"analysis/Mixed": 0.2})
    server = StandIn("bisae", [], [])
    with server.online(tmp_path, monkeypatch):
        parts = sorted(map(str, tmp_path.glob("wandb/offline-run-*")), reverse=True)
        command = [str(Path(sys.executable).with_name("wandb")), "sync", *parts]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    kinds = [kind for kind, _ in server.synced if kind not in ("files", "aaa")]
    assert kinds == ["resume", "run", "run"] * 2  # begun, and its config at its end
    files = [sent["files"] for kind, sent in server.synced if kind == "files" and "files" in sent]
    summaries = [
        json.loads(sent["wandb-summary.json"]["content"][-1]) for sent in files if "wandb-summary.json" in sent
    ]
    assert summaries[-1].items() >= {"train/fvu": 0.5, "val/fvu": 0.4, "analysis/Mixed": 0.2, "tokens": 10}.items()
    assert len(server.rows("aaa")) == 1


def test_names_tell_saes_apart() -> None:
    settings = {"_target_": "bisae.sae.TopK", "latents": 64, "k": 4, "lr": 0.002, "seed": 0}
    others: list[dict[str, Any]] = [{"k": 8}, {"latents": 32}, {"lr": 0.004}, {"seed": 1}]
    others.append({"_target_": "bisae.sae.architectures.candidate_topk.CandidateTopK"})
    all_of_them = [settings, *({**settings, **other} for other in others)]
    cells = [Cell(Path(), "embedded", 512, 2, "topk", {"sae": one}) for one in all_of_them]
    names = [run_name(cell, one).rpartition(" ") for cell, one in zip(cells, all_of_them, strict=True)]
    assert len({name for name, *_ in names}) == 6 and names[0][0] == "embedded step512 layer2 topk k4 n64 lr0.002 seed0"
    assert "topk CandidateTopK k4" in names[-1][0] and names[0][2] == cells[0].hash[:6]


def test_wandbs_variables_are_read_where_a_key_is_not_typed_and_what_gives_way_is_said(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MODE": "dryrun", "PROJECT": "mine", "DIR": "there", "NAME": "one", "RUN_ID": "x"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_TAGS", "a,b")

    def made(*overrides: str) -> WandbRuns:
        node: Any = OmegaConf.to_container(config(*overrides).logger, resolve=True)
        (runs,) = CellLoggers(node, "runs").wandb
        return runs

    runs = made("logger=wandb")
    assert (runs.mode, runs.project, str(runs.folder), runs.name) == ("offline", "mine", "there", "one")
    assert runs.about == {} and runs.overridden() == "WANDB_RUN_ID is not used"  # W&B itself reads WANDB_TAGS
    monkeypatch.delenv("WANDB_RUN_ID")
    runs = made("logger=wandb_online", "logger.project=typed", "tags=[c]", "notes=hi", "group=g", "job_type=t")
    assert runs.about == {"tags": ["c"], "notes": "hi", "group": "g", "job_type": "t"}
    given = ["WANDB_MODE=offline gives way to online", "WANDB_PROJECT=mine gives way to typed"]
    assert runs.overridden() == ", ".join([*given, "WANDB_TAGS=a,b gives way to c"])
    for name in ("MODE", "PROJECT", "DIR", "NAME", "TAGS"):
        monkeypatch.delenv(f"WANDB_{name}")
    runs = made("logger=wandb")
    assert (runs.mode, runs.project, str(runs.folder), runs.name) == ("offline", "bisae", "runs", None)
    assert made().mode == "disabled"


def test_a_name_is_that_of_a_lone_run_and_stands_before_others(tmp_path: Path) -> None:
    runs = WandbRuns("offline", "bisae", None, str(tmp_path), False, name="mine", tags="a,b", job_type="t")
    runs.open("aaa", "its name", "job", {}, alone=True)
    runs.open("bbb", "its name", "job", {})
    runs.close()
    records = [inspect(run) for run in sorted(tmp_path.glob("wandb/offline-run-*"))]
    found = [json.loads(next(line for line in text.splitlines() if '"type":"run"' in line))["run"] for text in records]
    assert sorted(run["display_name"] for run in found) == ["mine", "mine its name"]
    assert all((run["tags"], run["job_type"], run["run_group"]) == (["a", "b"], "t", "job") for run in found)


@pytest.mark.slow
def test_a_job_preempted_three_times_has_every_row_once_on_wandbs_server_and_its_cell_beside_them(
    config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    from bisae.cli.train import train
    from bisae.training.module import SAETraining
    from tests.grid.wandb_stand_in import StandIn

    server = StandIn("bisae", [], [])
    step: Any = SAETraining.training_step
    wandb.teardown()
    with server.online(tmp_path, monkeypatch):
        for call in (12, 6, 5):
            with monkeypatch.context() as patch, pytest.raises(SystemExit):
                patch.setattr(SAETraining, "training_step", killing(step, call, by=signal.SIGTERM))
                train(config("logger=wandb_online", "log_every=1"))
            wandb.teardown()
        (cell,) = train(config("logger=wandb_online", "log_every=1"))
        wandb.teardown()
    rows = server.rows(cell.read()["provenance"]["wandb_run"])
    assert [row["tokens"] for row in rows if "train/fvu" in row] == list(range(250, 12001, 250))
    (manifest,) = [sent for kind, sent in server.synced if kind == "manifest"]
    assert {name: entry["ref"] for name, entry in manifest["contents"].items()} == {
        file.name: file.as_uri() for file in cell.folder.iterdir()
    }
