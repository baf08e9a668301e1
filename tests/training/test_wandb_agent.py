"""Under `wandb agent`, which starts a command with the id of a run that W&B then uses whatever it is told."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

from bisae.cells.find import find_cells
from bisae.cli.train import train
from bisae.runtime.errors import ConfigError, Refused
from bisae.training.loggers import CellLoggers
from bisae.training.wandb_runs import WandbRuns
from tests.conftest import ROOT, TINY
from tests.grid.wandb_stand_in import USER, StandIn
from tests.training.test_wandb_runs import LM, inspect

Config = Callable[..., DictConfig]

# W&B leaves the file of the sweep's parameters open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*config-:ResourceWarning")


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`agent(id)`: from now on this process is one that an agent has started with that run."""
    import wandb

    def starts(run: str) -> None:
        wandb.teardown()  # W&B reads the environment once
        params = tmp_path / f"config-{run}.yaml"
        params.write_text("wandb_version: 1\nsae.k:\n  value: 4\n")
        given = {"SWEEP_ID": "sweep123", "RUN_ID": run, "PROJECT": "theirs", "SWEEP_PARAM_PATH": str(params)}
        for name, value in given.items():
            monkeypatch.setenv(f"WANDB_{name}", value)

    yield starts
    wandb.teardown()


@pytest.mark.slow
def test_the_cell_has_the_id_of_the_agents_run_and_analyses_go_on_in_it(
    config: Config, tmp_path: Path, agent: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bisae")
    agent("abcd1234")
    (cell,) = train(config("logger=wandb", "logger.project=typed"))
    assert "logger.project=typed gives way to the agent's theirs" in caplog.text and "RUN_ID" not in caplog.text
    assert cell.read()["provenance"]["wandb_run"] == "abcd1234"
    (found,) = find_cells("abcd1234", tmp_path / "runs")
    assert found.hash == cell.hash
    (run,) = tmp_path.glob("runs/wandb/offline-run-*")
    told = json.loads(inspect(run, "--summary"))
    assert told["run_id"] == "abcd1234" and told["summary"]["val/fvu"] == found.metrics["val/fvu"]
    assert told["config"]["sae.k"] == told["config"]["k"] == 4  # the sweep's parameter, and the axis
    lines = inspect(run).splitlines()
    (begun, *_) = [json.loads(line)["run"] for line in lines if '"type":"run"' in line]
    assert (begun["project"], begun["sweep_id"]) == ("theirs", "sweep123")

    runs = WandbRuns("offline", "bisae", None, str(tmp_path / "analysis"), False)
    runs.add(found, LM, {"analysis/Mixed": 0.2})
    runs.log_report("analysis", "a report", {}, {"cells": pd.DataFrame({"hash": [cell.hash]})}, [], [])
    parts = {part.name[-8:]: part for part in tmp_path.glob("analysis/wandb/offline-run-*")}
    assert len(parts) == 2
    summary = json.loads(inspect(parts["abcd1234"], "--summary"))["summary"]
    assert summary["analysis/Mixed"] == 0.2 and summary["val/fvu"] == found.metrics["val/fvu"]


@pytest.mark.slow
def test_a_killed_job_that_another_agent_ends_names_both_runs(
    config: Config, tmp_path: Path, agent: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        if list(tmp_path.glob("runs/.jobs/*/save.ckpt")):
            raise KeyboardInterrupt

    agent("aaaa1111")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CellLoggers, "log", killed)
        train(config("logger=wandb", "snapshots=[11500]"))
    agent("bbbb2222")
    (cell,) = train(config("logger=wandb", "snapshots=[11500]"))
    provenance = cell.read()["provenance"]
    assert (provenance["wandb_run"], provenance["wandb_runs_before"]) == ("bbbb2222", ["aaaa1111"])
    (snapshot,) = (one for one in find_cells(str(tmp_path / "runs"), tmp_path) if "snapshot" in one.identity)
    assert snapshot.provenance["snapshot_of_runs"] == ["aaaa1111", "bbbb2222"]
    assert [find_cells(run, tmp_path / "runs")[0].hash for run in ("aaaa1111", "bbbb2222")] == 2 * [cell.hash]
    assert not list(tmp_path.glob("runs/.jobs/*/*.json"))
    agent("cccc3333")
    (again,) = train(config("logger=wandb", "force=true"))
    provenance = again.read()["provenance"]
    assert provenance["wandb_run"] == "cccc3333" and "wandb_runs_before" not in provenance


@pytest.mark.slow
def test_wandb_agent_trains_a_cell_a_run_and_its_sweep_gets_the_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's own agent and client, online, against a stand-in for the server."""
    command = [sys.executable, str(ROOT / "train.py"), *TINY[:-1], "logger=wandb_online", "${args_no_hyphens}"]
    due = [
        {"type": "run", "run_id": run, "program": "train.py", "args": {"sae.k": {"value": k}}}
        for run, k in (("aaaa1111", 2), ("bbbb2222", 4))
    ]
    server = StandIn("bisae", [], [], command=command, due=due)
    with server.online(tmp_path, monkeypatch):
        wandb = str(Path(sys.executable).with_name("wandb"))
        typed = [wandb, "agent", "--count", "2", f"{USER}/bisae/sweep123"]
        environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # of this process
        done = subprocess.run(typed, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and not server.due, done.stderr
    for run, k in (("aaaa1111", 2), ("bbbb2222", 4)):
        (found,) = find_cells(run, tmp_path / "runs")
        assert found.identity["sae"]["k"] == k
        (begun, *_) = [asked for kind, asked in server.synced if kind == "run" and asked["name"] == run]
        assert (begun["sweep"], begun["project"]) == ("sweep123", "bisae")
    files = [sent["files"] for kind, sent in server.synced if kind == "files" and "files" in sent]
    last = [json.loads(sent["wandb-summary.json"]["content"][-1]) for sent in files if "wandb-summary.json" in sent]
    assert found.metrics["val/fvu"] in [summary.get("val/fvu") for summary in last]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["layer=[1,2]"], r"layer=\[1, 2\]: these 2 SAEs would share the run of `wandb agent`"),
        (["sae.k=[2,4,8]"], r"sae.k=\[2, 4, 8\]: these 3 SAEs"),
        (["checkpoint=512", "sae.start=previous", "ladder=[0,512]"], "sae.start=previous: these 2 SAEs"),
    ],
)
def test_several_saes_in_one_run_are_refused_before_work(
    typed: list[str], message: str, config: Config, tmp_path: Path, agent: Callable[[str], None]
) -> None:
    agent("abcd1234")
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(config("logger=wandb", *typed))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_without_wandb_an_agent_may_train_several(config: Config, agent: Callable[[str], None]) -> None:
    agent("abcd1234")
    assert len(train(config("logger=none", "sae.k=[2,4]"))) == 2


def test_a_folder_that_is_missing_is_not_taken_for_a_run_on_wandbs_server(tmp_path: Path) -> None:
    (tmp_path / "tiny/pilot").mkdir(parents=True)
    with pytest.raises(Refused, match="no such folder or glob"):
        find_cells("tiny/pilot/step0512", tmp_path)
