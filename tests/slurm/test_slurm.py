"""Sweeps on a real SLURM of one node. Skipped where it is not installed: apt-get install slurmctld slurmd, as root."""

import json
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.conftest import ROOT, TINY, run
from tests.slurm.cluster import Cluster, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRAINED = [key for key in TINY if key not in ("logger=none", "log_every=5", "save_every=7")]
SLOW = """
import time

from lightning import Callback


class Slow(Callback):
    changes_results = False

    def on_train_batch_end(self, *_):
        time.sleep(0.4)
"""
LAUNCHER = ["partition=low", "cpus_per_task=1", "mem_gb=1", "gpus_per_node=null", "signal_delay_s=5"]
JOBS = ["hydra/launcher=slurm", *(f"hydra.launcher.{setting}" for setting in LAUNCHER)]


class Sweep:
    """`train.py -m` in `folder`, whose jobs take half a minute; its output goes to files there."""

    def __init__(self, cluster: Cluster, folder: Path, *typed: str) -> None:
        (folder / "slow.py").write_text(SLOW)
        command = [sys.executable, str(ROOT / "train.py"), "-m", *TRAINED, "save_every=2", "log_every=1", *JOBS, *typed]
        environment = {**cluster.environment, "PYTHONPATH": f"{ROOT}:{folder}"}
        self.folder, self.cluster = folder, cluster
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            self.process = subprocess.Popen(
                [*command, "+callbacks.slow._target_=slow.Slow"], cwd=folder, env=environment, stdout=out, stderr=err
            )
        cluster.commands.append(self.process)

    def said(self) -> str:
        return (self.folder / "out").read_text() + (self.folder / "err").read_text()

    def logs(self) -> str:
        """Of the jobs."""
        return "".join(file.read_text() for file in sorted(self.folder.glob("runs/.submitit/*/*log.*")))

    def wait_for_saves(self, count: int = 1) -> None:
        wait_until(lambda: len(self.saves()) >= count, f"{count} saves", 300)

    def saves(self) -> list[Path]:
        return [file for file in self.folder.glob("runs/.jobs/**/*.ckpt") if file.is_file()]

    def runs(self) -> bool:
        """Whether its first job does; one that was requeued need not wait for two minutes."""
        for job in self.jobs().values():
            if job["Reason"] == "BeginTime":
                self.cluster.ask("scontrol", "update", f"JobId={job['JobId']}", "StartTime=now")
        return self.states().get("0") == "RUNNING"

    def saved_after(self, time: int) -> bool:
        return self.saves()[0].stat().st_mtime_ns > time

    def restarted(self, count: int) -> bool:
        return {job["Restarts"] for job in self.jobs().values()} == {str(count)}

    def jobs(self) -> dict[str, dict[str, str]]:
        """Of this sweep, by the number in its array."""
        return {job.get("ArrayTaskId", "0"): job for job in self.cluster.jobs() if job["WorkDir"] == str(self.folder)}

    def states(self) -> dict[str, str]:
        return {number: job["JobState"] for number, job in self.jobs().items()}


def rows_of_runs(runs: Path) -> list[int]:
    """The tokens of each row of training metrics in all parts of the W&B runs, in the order of the parts."""
    found = []
    for part in sorted(runs.glob("wandb/offline-run-*")):
        command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(part)]
        lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        items = [json.loads(line)["history"]["item"] for line in lines if '"type":"history"' in line]
        found += [item["tokens"] for item in items if "train/fvu" in item]
    return found


def test_a_cluster_without_gpus_is_said_in_a_line(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, "hydra.launcher.gpus_per_node=1", "layer=1,2")
    assert sweep.process.wait() == 1
    *_, line = (tmp_path / "err").read_text().splitlines()
    assert "Traceback" not in sweep.said()
    assert line.startswith("error: hydra.launcher: ") and "(gres)" in line and "hydra.launcher.gpus_per_node" in line


def test_scancel_ends_a_job_and_a_failed_job_has_failed_for_slurm_too(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, "hydra.launcher.array_parallelism=2", "layer=9,1,2,3")
    wait_until(lambda: sweep.states().get("0") == "FAILED", "the job with layer 9 has failed")
    sweep.wait_for_saves(2)
    array = sweep.jobs()["1"]["ArrayJobId"]
    cluster.ask("scancel", f"{array}_1", f"{array}_3")  # one that runs, one that has not begun
    assert sweep.process.wait() == 1
    assert sweep.states() == {"0": "FAILED", "1": "CANCELLED", "2": "COMPLETED", "3": "CANCELLED"}
    assert {job["Restarts"] for job in sweep.jobs().values()} == {"0"}
    assert "Traceback" not in sweep.said() + sweep.logs()
    *_, title, nine, one, three = (tmp_path / "err").read_text().splitlines()
    assert title == "3 of 4 jobs failed:"
    assert nine.startswith("  layer=9: error: layer=9: ")
    assert one == "  layer=1: was told to stop; the same command goes on"
    assert three == "  layer=3: left no result, SLURM says CANCELLED"
    assert len(sweep.saves()) == 1  # of layer 1, from which it goes on
    assert len(list(tmp_path.glob("runs/embedded/*/layer02/*/cell.json"))) == 1


@pytest.mark.parametrize("partition", ["low", "kill"])
def test_preempted_jobs_are_run_again_and_end_in_the_same_cell(
    cluster: Cluster, tmp_path: Path, partition: str
) -> None:
    sweep = Sweep(cluster, tmp_path, f"hydra.launcher.partition={partition}", "layer=1")
    for restarts, grace in enumerate((0, 100, 100), start=1):
        cluster.ask("scontrol", "update", f"PartitionName={partition}", f"GraceTime={grace}")
        wait_until(sweep.runs, "the job runs", 300)
        sweep.wait_for_saves()
        saved = sweep.saves()[0].stat().st_mtime_ns
        wait_until(partial(sweep.saved_after, saved), "it goes on", 300)
        cluster.ask("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=true")
        wait_until(partial(sweep.restarted, restarts), "it is preempted", 120)
    wait_until(lambda: sweep.runs() or sweep.process.poll() is not None, "the job runs", 300)
    assert sweep.process.wait() == 0
    assert sweep.states() == {"0": "COMPLETED"} and "Traceback" not in sweep.said() + sweep.logs()
    assert run([str(ROOT / "train.py"), *TRAINED, "log_every=1", "layer=1", "runs=alone"], tmp_path).returncode == 0
    (cell,) = tmp_path.glob("runs/embedded/**/sae.safetensors")
    alone = load_file(tmp_path / "alone" / cell.relative_to(tmp_path / "runs"))
    assert rows_of_runs(tmp_path / "runs") == rows_of_runs(tmp_path / "alone") != []
    assert {name: values.tobytes() for name, values in load_file(cell).items()} == {
        name: values.tobytes() for name, values in alone.items()
    }


def test_jobs_whose_sweep_is_stopped_end_as_if_it_were_not(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Sweep(cluster, tmp_path, "layer=1,9", "hydra.launcher.array_parallelism=1")
    sweep.wait_for_saves()
    sweep.process.send_signal(signal.SIGTERM)
    assert sweep.process.wait() == 143
    wait_until(lambda: sweep.states() == {"0": "COMPLETED", "1": "FAILED"}, "both jobs have ended", 300)
    assert "Traceback" not in sweep.said() + sweep.logs()
    assert re.search(r"error: layer=9: ", sweep.logs())
    assert len(list(tmp_path.glob("runs/embedded/*/layer01/*/cell.json"))) == 1
    assert not list(tmp_path.glob("runs/.sweep*"))
