"""Searches: what is drawn, what becomes of failures, and real commands that are killed and run again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler

from bisae.cli.search import Search, show_best, space_of
from bisae.cli.train import mean_metric, train
from tests.conftest import ROOT, TINY, run

PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    ("typed", "drawn"),
    [
        ("sae.lr=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("sae.lr=interval(0.5,2)", FloatDistribution(0.5, 2)),
        ("optimizer.warmup=int(tag(log,interval(10,500)))", IntDistribution(10, 500, log=True)),
        ("sae.k=int(interval(4,16))", IntDistribution(4, 16)),
        ("sae.k=range(4,16,2)", IntDistribution(4, 14, step=2)),  # Hydra's ranges are without their end
        ("sae.k=range(4,15,2)", IntDistribution(4, 14, step=2)),
        ("x=range(0.0,1.0,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("sae.k=8,16", CategoricalDistribution(["8", "16"])),
        ("sae=choice(topk,jump_relu)", CategoricalDistribution(["topk", "jump_relu"])),
        ("layer=[1,2],3,null", CategoricalDistribution(["[1,2]", "3", "null"])),
    ],
)
def test_what_is_swept_is_what_optuna_draws_from(typed: str, drawn: object) -> None:
    space, fixed = space_of(PARSER.parse_overrides([typed]))
    assert list(space.values()) == [drawn] and list(space) == [typed.partition("=")[0]] and fixed == []


def test_of_a_key_the_last_counts_and_others_stay_as_they_are_typed() -> None:
    typed = ["sae.lr=interval(1,2)", "sae.k=8,16", "~logger", "sae.lr=0.1", "+a='b c'", "sae.k=int(interval(2,4))"]
    space, fixed = space_of(PARSER.parse_overrides(typed))
    assert space == {"sae.k": IntDistribution(2, 4)} and fixed == ["sae.lr=0.1", "~logger", "+a='b c'"]


def searched(
    folder: Path, value_of: Callable[..., Any], sampler: Any = None, direction: Any = "minimize", trials: int = 12
) -> tuple[Any, list[list[str]]]:
    """The results of a search and the overrides of its jobs, which return `value_of(lr, k)`."""
    launched: list[list[str]] = []

    def launch(jobs: Sequence[Sequence[str]], number: int) -> list[Any]:
        (overrides,) = jobs
        assert number == len(launched) and overrides[0] == "checkpoint=512"
        launched.append(list(overrides))
        lr, k = (override.partition("=")[2] for override in overrides[1:])
        made = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(folder)}}})
        value = value_of(float(lr), int(k))
        return [SimpleNamespace(return_value=value, hydra_cfg=None if value is None else made)]  # None: of a lost job

    params = {"sae.lr": "tag(log,interval(1e-4,1e-1))", "sae.k": "4,8"}
    search = Search(sampler or TPESampler(seed=0), direction, trials, params, str(folder / "found.yaml"))
    search.parser, search.metric = PARSER, "val/fvu"
    search.jobs = SimpleNamespace(launch=launch)  # type: ignore[assignment]
    search.sweep(["checkpoint=512"])
    return OmegaConf.load(folder / "found.yaml"), launched


def bowl(lr: float, k: int) -> float:
    return abs(lr - 0.01) + k / 100


def test_a_search_again_proposes_the_same_trials_and_finds_the_same_best(tmp_path: Path) -> None:
    first, again = searched(tmp_path, bowl, trials=25), searched(tmp_path, bowl, trials=25)
    assert first == again
    values = [trial.value for trial in first[0].trials]
    assert (
        first[0].best_value == min(values) and first[0].best_params == first[0].trials[values.index(min(values))].params
    )
    assert len({tuple(job) for job in first[1]}) > 20
    assert searched(tmp_path, bowl, TPESampler(seed=1))[1] != first[1]
    most, _ = searched(tmp_path, bowl, RandomSampler(seed=0), "maximize")
    assert most.best_value == max(trial.value for trial in most.trials)


def test_failed_trials_are_told_as_failed_and_are_never_the_best(tmp_path: Path) -> None:
    found, jobs = searched(tmp_path, lambda lr, k: None if lr > 0.01 else float("nan") if k == 4 else lr)
    values = [trial.value for trial in found.trials]
    assert None in values and found.best_value == min(value for value in values if value is not None)
    assert len(jobs) == 12 and show_best(tmp_path / "found.yaml")
    found, _ = searched(tmp_path, lambda lr, k: None)
    assert "best_value" not in found and not show_best(tmp_path / "found.yaml")


def test_a_search_that_cannot_work_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: hydra.sweeper.n_trials=0: must be a whole number, at least 1"):
        searched(tmp_path, bowl, trials=0)
    search = Search(TPESampler(), "minimize", 1, {}, "")
    search.parser = PARSER
    with pytest.raises(SystemExit, match="nothing to search"):
        search.sweep(["sae.k=8"])
    for metric in ("val/fvuu", "val/fvuu/ja", "fvu", "None"):  # rather than in each of its jobs
        with pytest.raises(SystemExit, match=f"error: optimized_metric={metric}: no such metric; there are val/fvu, "):
            search.check_metric(metric)
    for metric in ("val/fvu", "val/cosine/ja"):
        search.check_metric(metric)


def test_a_search_without_m_is_refused(tmp_path: Path) -> None:
    done = run([str(ROOT / "train.py"), "hparams_search=optuna"], tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("error: hparams_search=optuna: is a search, which needs -m")


@pytest.mark.slow
def test_a_job_returns_the_mean_of_a_metric_over_its_cells_and_a_trial_nothing(
    config: Callable[..., DictConfig],
) -> None:
    cells = train(config("sae.k=[2,4]", "data.epochs=1"))
    for metric in ("val/fvu", "val/cosine/ja"):
        values = [cell.read()["metrics"][metric] for cell in cells]
        assert mean_metric(cells, metric) == pytest.approx(sum(values) / 2) and values[0] != values[1]
    assert mean_metric(train(config("data.epochs=1", "+trainer.fast_dev_run=true")), "val/fvu") is None


@pytest.mark.slow
def test_without_optuna_a_search_is_refused_before_its_first_job_by_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError('none here')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, str(ROOT / "train.py"), "-m", "hparams_search=optuna", *TINY]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: hydra/sweeper=optuna") and "[search]" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and [file.name for file in tmp_path.iterdir()] == ["optuna.py"]


SEARCH = [
    *(str(ROOT / "train.py"), "-m", *TINY, "hparams_search=optuna", "hydra.sweeper.n_trials=3"),
    *("hydra.sweeper.sampler.seed=5", "+hydra.sweeper.sampler.n_startup_trials=2", "data.epochs=1"),
    *("sae.lr=4e-3,1e38", "sae.k=range(2,9)", "optimizer.warmup=5"),  # 1e38 fails
]


@pytest.mark.slow
@pytest.mark.timeout(900)  # about ten processes that train, one after the other
def test_a_killed_search_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "killed").mkdir()
    done = run(SEARCH, tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    expected = (tmp_path / "undisturbed/runs/optimization_results.yaml").read_text()
    assert "best: val/fvu" in done.stdout and done.stdout.count(": failed") == expected.count("value: null") == 1
    assert "1 of 3 jobs failed" in done.stdout and "is sae.lr too high?" in done.stdout
    with subprocess.Popen(
        [sys.executable, *SEARCH], cwd=tmp_path / "killed", stdout=subprocess.DEVNULL, start_new_session=True
    ) as search:
        while not list((tmp_path / "killed").rglob("cell.json")):  # of the first trial; then the second begins
            assert search.poll() is None
            time.sleep(0.05)
        os.killpg(search.pid, signal.SIGKILL)
    assert search.returncode == -9
    done = run(SEARCH, tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed/runs/optimization_results.yaml").read_text() == expected
