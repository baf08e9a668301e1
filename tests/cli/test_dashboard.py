import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from bisae.analysis.summary import summarize
from bisae.cli.dashboard import dashboard
from bisae.cli.train import train
from bisae.runtime.errors import ConfigError
from bisae.training.wandb_runs import WandbRuns
from tests.analysis.small_cell import LANGUAGES, described, rules
from tests.conftest import ROOT, run
from tests.grid.wandb_stand_in import USER, StandIn, StoredRun

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
SWEEP = "sweep 2026-01-02 03:04:05"


def inside(node: Any, key: str) -> Iterator[Any]:
    """The values of `key` anywhere in a spec."""
    if isinstance(node, dict) and key in node:
        yield node[key]
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from inside(inner, key)


def panels(spec: Any, kind: str) -> list[Any]:
    lists = [found for found in inside(spec, "panels") if isinstance(found, list)]
    return [panel["config"] for found in lists for panel in found if panel["viewType"] == kind]


def chosen_by(spec: Any) -> list[dict[str, Any]]:
    """Of each panel grid the keys and values its runs are chosen by."""
    grids = [one["filters"]["filters"] for sets in inside(spec, "runSets") for one in sets]
    return [{f"{one['key']['section']}.{one['key']['name']}": one["value"] for one in grid} for grid in grids]


def log_report(kind: str, output: str, folder: Path, table: str, figure: str) -> StoredRun:
    """A report's run, logged as analyze.py and intervene.py do."""
    picture = folder / f"{figure}.png"
    matplotlib.image.imsave(picture, [[0.0, 1.0]])
    runs = WandbRuns("offline", "bisae", None, str(folder / kind), False)
    runs.log_report(kind, output, {"seed": 0}, {table: pd.DataFrame({"hash": ["a"], "step": [0]})}, [picture], [])
    (logged,) = (folder / kind / "wandb").glob("offline-run-*")
    return StoredRun.uploaded(logged, kind)


def test_a_report_holds_what_training_and_the_reports_have_logged(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_RUN_GROUP", SWEEP)
        train(config("logger=wandb", "data.tokens=2000"))
    (logged,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    cell = StoredRun.uploaded(logged, SWEEP)
    analysis = log_report("analysis", "report", tmp_path, "cells", "over_step")
    intervention = log_report("intervention", "interventions", tmp_path, "interventions", "over_coefficient")
    other = replace(cell, id="other", config={**cell.config, "sweep": None, "model": "of no sweep"})
    older = replace(analysis, id="older", summary={"old": {"_type": "table-file"}})
    server = StandIn("grids", [cell, other, older, analysis, replace(intervention, id="cafe")], [])
    with server.online(tmp_path, monkeypatch):
        command = ["-m", "bisae", "dashboard", "logger.project=grids", f"only.sweep={SWEEP}", "draft=true"]
        done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    (view,) = server.saved
    assert (view["entityName"], view["projectName"], view["type"]) == (USER, "grids", "runs/draft")
    assert done.stdout.strip().endswith(f"/{USER}/grids/reports/Grid-of-SAEs--Vmlldzox")
    spec = view["spec"]
    assert f"1 sparse autoencoders of {SWEEP}" in str(spec) and "LM: embedded" in inside(spec, "text")

    lines = panels(spec, "Run History Line Plot")
    assert {line["xAxis"] for line in lines} == {"tokens"} and "tokens" in cell.summary
    drawn = {name for line in lines for name in line["metrics"]}
    assert {"train/fvu", "train/dead"} < drawn < cell.summary.keys()
    assert {line.get("groupBy") for line in lines} == {None, "layer.value"}

    known = {f"summary:{name}" for name in cell.summary} | {f"config:{axis}.value" for axis in cell.config}
    scattered = panels(spec, "Scatter Plot")
    assert {plot[axis] for plot in scattered for axis in ("xAxis", "yAxis", "zAxis")} < known
    over_steps = {plot["yAxis"] for plot in scattered if plot["xAxis"] == "config:step.value"}
    assert {"summary:val/fvu", "summary:val/fvu/en", "summary:val/fvu/ja", "summary:val/dead"} < over_steps
    bars = {(bar["groupBy"], *bar["metrics"]) for bar in panels(spec, "Bar Chart")}
    assert bars == {(f"{axis}.value", name) for axis in ("model", "layer") for name in ("val/fvu", "val/dead")}
    (parallel,) = panels(spec, "Parallel Coordinates Plot")
    columns = [column["accessor"] for column in parallel["columns"]]
    assert set(columns) < known and columns[-1] == "summary:val/fvu"
    assert {f"config:{axis}.value" for axis in ("lr", "k", "latents")} < set(columns)

    cells = {"config.d_model": 1, "config.sweep": SWEEP}
    reports = [{"run.name": [one]} for one in (analysis.id, "cafe")]
    assert chosen_by(spec) == [cells, {**cells, "config.model": "embedded"}, cells, cells, *reports]
    assert [shown["mediaKeys"] for shown in panels(spec, "Media Browser")] == [
        ["figures/over_step"],
        ["figures/over_coefficient"],
    ]
    tables = [str(table) for table in panels(spec, "Weave")]
    assert ["cells" in tables[0], "interventions" in tables[1], len(tables)] == [True, True, 2]
    charts = panels(spec, "Vega2")
    assert {"Mixed", "monosemanticity"} < {chart["fieldSettings"]["y"] for chart in charts}
    columns_there = summarize(described(tmp_path / "small", rules())[0], LANGUAGES, rules()).keys()
    assert {chart["fieldSettings"]["y"] for chart in charts} < columns_there


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("dashboard", list(overrides))


@pytest.mark.parametrize(
    ("override", "key", "remedy"),
    [
        ("logger=wandb", "logger.mode", "logger=wandb_online"),
        ("logger=none", "logger.mode", "logger=wandb_online"),
        ("logger.project=null", "logger.project", "text"),
        ("only.sweep='lr=1'", "only.sweep", "without ="),
        ("only.model=[a,b]", "only.model", "must be text, .* or null"),
        ("title=a/b", "title", "letters"),
        ("draft=maybe", "draft", "true or false"),
        ("draft=???", "draft", "give a value"),
    ],
)
def test_what_cannot_work_is_refused_by_key_before_wandb_is_asked(
    override: str, key: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=remedy) as refused:
        dashboard(composed(override))
    assert refused.value.key == key


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[report\]'"):
        dashboard(composed())


@pytest.mark.parametrize(
    ("overrides", "login", "entity", "project", "key", "remedy"),
    [
        ([], False, USER, "bisae", "logger.mode", "wandb login"),
        ([], True, None, "bisae", "logger.entity", "name a W&B team"),
        ([], True, USER, "another", "logger.project", "could not find project"),
        ([], True, USER, "bisae", "logger.project", "wandb sync"),
        (["only.model=small"], True, USER, "bisae", "only.model", "wandb sync"),
        (["only.model=small", "only.sweep=first"], True, USER, "bisae", "only.sweep", "wandb sync"),
    ],
)
def test_who_may_not_write_or_has_no_runs_is_told_the_key(
    overrides: list[str],
    login: bool,
    entity: str | None,
    project: str,
    key: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import wandb

    def runs(path: str, filters: object, **_: object) -> list[Any]:
        if path != f"{USER}/{project}":
            raise ValueError("could not find project")
        return []

    monkeypatch.setattr(wandb, "login", lambda prompt: login)
    monkeypatch.setattr(wandb, "Api", lambda timeout: SimpleNamespace(default_entity=entity, runs=runs))
    with pytest.raises(ConfigError, match=remedy) as refused:
        dashboard(composed(*overrides))
    assert refused.value.key == key
