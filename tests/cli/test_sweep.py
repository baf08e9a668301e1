import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from bisae.cli.sweep import _status, layers_of_all_jobs, name_of_sweep
from bisae.runtime.errors import STOPPED
from tests.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow

# Like train.py, but its jobs only write down how they were started, and end in the way that `layer` says.
SCRIPT = f"""
import json, logging, os, time
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from bisae.runtime.errors import ConfigError
from bisae.cli.sweep import one_process_per_job


@hydra.main(version_base="1.3", config_path={str(ROOT / "conf")!r}, config_name="train")
@one_process_per_job
def main(cfg):
    about = {{"process": os.getpid(), "environment": dict(os.environ), "config": OmegaConf.to_container(cfg)}}
    about["level"] = logging.getLogger().level
    Path(f"job{{cfg.layer}}.tmp").write_text(json.dumps(about))
    os.rename(f"job{{cfg.layer}}.tmp", f"job{{cfg.layer}}.json")
    if cfg.layer == 1:
        raise ConfigError("layer", 1, "is refused")
    if cfg.layer == 2:
        raise RuntimeError("unforeseen")
    if cfg.layer == 3:
        os.kill(os.getpid(), 9)
    if cfg.layer > 3:
        time.sleep(600)


if __name__ == "__main__":
    main()
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "script.py").write_text(SCRIPT)
    return str(tmp_path / "script.py")


@pytest.mark.parametrize(
    ("typed", "layers"),
    [
        (["layer=1,2"], "[1,2]"),
        (["checkpoint=0,512", "layer=[3,1],[2]"], "[1,2,3]"),
        (["layer=2,[0,2]"], "[0,2]"),
        (["layer=range(1,5)"], "[1,2,3,4]"),
        (["layer=choice(4,2)"], "[2,4]"),
        (["layer=1,all"], "all"),
        (['++layer="all",3'], "all"),
        (["layer=1,2", "layer=3,4"], "[3,4]"),
        (["layer=1,2", "layer=3"], None),
        (["layer=1,two"], "[1]"),
        (["layer=[1,2]", "checkpoint=0,512"], None),
        (["sae.k=4,8"], None),
    ],
)
def test_the_layers_of_a_sweep_are_those_of_all_its_jobs(typed: list[str], layers: str | None) -> None:
    assert layers_of_all_jobs(typed) == layers


def test_a_sweep_that_is_extended_or_run_again_keeps_its_name() -> None:
    name = name_of_sweep(["layer=1,2", "sae.k=4,8", "checkpoint=512"])
    assert name.startswith("sweep layer sae.k ")
    assert name == name_of_sweep(["checkpoint=512", "sae.k=16,32", "layer=range(1,5)", "force=true"])
    others = [["layer=1,2", "sae.k=4,8", "checkpoint=7"], ["layer=1,2", "sae.k=4,8"], ["layer=1,2", "sae.k=4"]]
    assert len({name, *map(name_of_sweep, others)}) == 4


def test_a_sweep_reads_the_lm_once_a_checkpoint_and_shows_all_cells_and_failures(tmp_path: Path) -> None:
    sweep = run([str(ROOT / "train.py"), "-m", *TINY, "checkpoint=512,7", "layer=1,2", "sweep.pack=false"], tmp_path)
    assert sweep.returncode == 1 and "Traceback" not in sweep.stderr
    first, second = (
        [file.stat().st_mtime_ns for file in tmp_path.glob(f"cache/activations/**/{layer}/*.bin")]
        for layer in ("layer01", "layer02")
    )
    assert len(first) == len(second) > 1 and min(second) < max(first) and min(first) < max(second)  # shard by shard
    table = sweep.stdout.split("\n model ")[-1].splitlines()
    assert [line.split()[:3] for line in table[1:3]] == [["embedded", "512", "1"], ["embedded", "512", "2"]]
    *_, title, one, other = sweep.stderr.splitlines()
    assert title == "2 of 4 jobs failed:"
    assert one.startswith("  checkpoint=7 layer=1: error: checkpoint=7: ") and "layer=2: error: " in other
    assert not list((tmp_path / "runs").glob(".sweep*"))


def test_each_job_is_a_process_started_as_typed_with_no_ranks_in_sight(
    tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_in_file = "hydra: {mode: MULTIRUN, sweeper: {params: {layer: '0,1,2,3'}}}"
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.yaml").write_text(f"defaults: [train, _self_]\nlog_every: 7\n{sweep_in_file}\n")
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    outer = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1", "SLURM_NTASKS": "2"}
    for key, value in outer.items():
        monkeypatch.setenv(key, value)
    typed = ["checkpoint=512", "sae.name='a,b'", "hydra.job_logging.root.level=ERROR"]
    sweep = run([script, "--config-dir=more", "--config-name=other", *typed], tmp_path)
    jobs = [json.loads((tmp_path / f"job{layer}.json").read_text()) for layer in range(4)]
    assert len({job["process"] for job in jobs}) == 4
    assert len({job["environment"]["WANDB_RUN_GROUP"] for job in jobs}) == 1
    for job in jobs:
        assert not outer.keys() & job["environment"].keys()
        assert job["level"] == logging.ERROR
        assert job["config"]["log_every"] == 7 and job["config"]["sae"]["name"] == "a,b"
        assert job["config"]["activations"]["layers"] == [0, 1, 2, 3]
    assert sweep.returncode == 1
    lines = re.sub(r"runs/failed/[\w-]+", "F", sweep.stderr).splitlines()[-4:]
    assert lines == [
        "3 of 4 jobs failed:",
        "  layer=1: error: layer=1: is refused",
        "  layer=2: RuntimeError: unforeseen (config and log: F)",
        "  layer=3: was killed, perhaps for its memory; the same command goes on, or with fewer SAEs in a job "
        "(config and log: F)",
    ]
    configs = tmp_path.glob("runs/failed/*/config.yaml")
    kept = {int(yaml.safe_load(file.read_text())["layer"]): file.parent for file in configs}
    assert set(kept) == {2, 3} and "was killed" in (kept[3] / "log").read_text()


@pytest.mark.parametrize(("group", "number"), [(True, signal.SIGINT), (False, signal.SIGTERM), (False, signal.SIGHUP)])
def test_ctrl_c_and_a_kill_end_the_job_and_the_sweep(
    tmp_path: Path, script: str, group: bool, number: signal.Signals
) -> None:
    command = [sys.executable, script, "-m", "checkpoint=512", "activations=streaming", "layer=4,5", "sweep.pack=false"]
    sweep = subprocess.Popen(
        command,
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's `&`, and nohup, make jobs deaf to it
    )
    while not (tmp_path / "job4.json").exists():  # a hanging sweep meets pytest's time limit
        assert sweep.poll() is None
        time.sleep(0.05)
    os.killpg(sweep.pid, number) if group else sweep.send_signal(number)
    _, errors = sweep.communicate()
    assert sweep.returncode > 0 and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(sweep.pid, 0)
    assert not (tmp_path / "job5.json").exists() and not list((tmp_path / "runs").iterdir())


SAVES_WHEN_TOLD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.2), sys.exit(143)))
print(flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("told", ["the launcher", "the job"])
def test_a_job_that_is_told_to_stop_has_saved_before_it_is_submitted_again(told: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SAVES_WHEN_TOLD], stdout=subprocess.PIPE) as job:
        assert job.stdout is not None and job.stdout.readline()
        submitted: list[int | None] = []
        before = signal.signal(signal.SIGUSR2, lambda *_: submitted.append(job.returncode))  # submitit's
        number, process = (signal.SIGUSR2, os.getpid()) if told == "the launcher" else (signal.SIGTERM, job.pid)
        threading.Timer(0.5, os.kill, (process, number)).start()
        try:
            assert _status(job) == STOPPED and submitted == [STOPPED]
        finally:
            signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("environment", "typed", "message"),
    [
        ({"TORCHELASTIC_RUN_ID": "1"}, [], "error: -m starts its jobs itself; "),
        ({"WANDB_SWEEP_ID": "sweep123"}, [], "error: -m under wandb agent: "),
        ({}, ["runs=/dev/null/runs"], "error: runs=/dev/null/runs"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], typed: list[str], message: str
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    refused = run([str(ROOT / "train.py"), "-m", "checkpoint=0,512", *typed], tmp_path)
    assert refused.returncode == 1 and refused.stderr.startswith(message) and len(refused.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_sweep_folder_that_exists_is_refused_since_it_would_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cell.json").touch()
    done = run([str(ROOT / "train.py"), "-m", "layer=1,2", "hydra.sweep.dir=mine"], tmp_path)
    assert done.returncode == 1 and "hydra.sweep.dir" in done.stderr
    assert (tmp_path / "mine" / "cell.json").exists()
