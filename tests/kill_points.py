"""Kills real commands (SIGKILL) at random moments and starts them again; they must end as undisturbed, bit for bit.

    python -m tests.kill_points --points 20 --seed 0 --json kills.json [train] [pretrain] [cache] [analyze] ...

A command that ends before its next kill is compared, and begins again in a fresh folder. Moments are drawn between the
command's first write and its end, as the undisturbed run took them.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conftest import ROOT, TINY, TINY_ANALYSIS, TINY_INTERVENTION, few_pairs
from tests.pretrain.toy import SMALL, toy_corpus

TRAIN = [str(ROOT / "train.py"), *TINY, "layer=[1,2]"]
COMMANDS = {
    "train": [*TRAIN, "data.epochs=20"],
    "cache": [*TRAIN, "data.epochs=1", "data.tokens=200000", "activations.pass.shard_batches=16"],
    # 40 cells: checkpoints x layers x seeds.
    "sweep": [TRAIN[0], "-m", *TINY[1:], "checkpoint=64,256,512,1024,2048", "layer=all", "sae.seed=[0,1]"],
    "search": [TRAIN[0], "-m", *TINY, "hparams_search=optuna"],  # 20 trials
    "pretrain": ["-m", "bisae", "pretrain", "name=toy", "out=ladder", *SMALL, "schedule.steps=400"],
    "analyze": [str(ROOT / "analyze.py"), *TINY_ANALYSIS, "alignment.pairs=pairs.tsv"],
    "intervene": [str(ROOT / "intervene.py"), *TINY_INTERVENTION, "kind=[en,ja]", "control.random=1"],
}
BEFORE: dict[str, list[list[str]]] = {  # what a command needs done
    "analyze": [TRAIN],
    "intervene": [
        [*TRAIN, "checkpoint=final"],
        [str(ROOT / "analyze.py"), *TINY_ANALYSIS, "alignment.pairs=null", "only.layer=2", "output=null"],
    ],
}
UNLIKE = (".lock", "used", ".grid", ".sweep-*")  # files and folders that say when or who


@dataclass
class Outcome:
    """`ends`: runs that came to their end after kills, and were compared; `unlike`: files that differed."""

    command: str
    points: int
    undisturbed_s: float
    first_write_s: float
    moments_s: list[float] = field(default_factory=list)
    ends: int = 0
    unlike: list[str] = field(default_factory=list)


def start(arguments: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=quiet, stderr=pipe, text=True, start_new_session=True
    )


def finish(job: "subprocess.Popen[str]") -> None:
    _, errors = job.communicate()
    if job.returncode:
        raise SystemExit(f"ended with status {job.returncode}:\n{errors}")


def contents(folder: Path) -> dict[str, bytes]:
    def compared(place: Path) -> bool:
        return not any(fnmatch(part, name) for part in place.parts for name in UNLIKE)

    files = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
    return {str(place): file.read_bytes() for place, file in files.items() if compared(place)}


def names(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def prepared(command: str, folder: Path) -> list[str]:
    """The command line, and in `folder` what it needs."""
    folder.mkdir()
    few_pairs(folder)
    for before in BEFORE.get(command, []):
        finish(start(before, folder))
    return [*COMMANDS[command], *(toy_corpus(folder) if command == "pretrain" else [])]


def killed_at(command: str, points: int, seed: int, place: Path) -> Outcome:
    """Run `command` below `place`, killed at `points` moments."""
    line = prepared(command, place / "base")
    shutil.copytree(place / "base", place / "undisturbed")
    there, started, first = names(place / "undisturbed"), time.monotonic(), None
    job = start(line, place / "undisturbed")
    while job.poll() is None:
        if first is None and names(place / "undisturbed") != there:
            first = time.monotonic() - started
        time.sleep(0.05)
    finish(job)
    whole, expected = time.monotonic() - started, contents(place / "undisturbed")
    outcome, drawn, fresh = Outcome(command, points, whole, first or 0.0), random.Random(seed), True
    while len(outcome.moments_s) < points or not fresh:
        folder = place / f"killed{outcome.ends}"
        if fresh:
            shutil.copytree(place / "base", folder)
        job, fresh = start(line, folder), False
        try:
            last = len(outcome.moments_s) == points
            job.wait(None if last else drawn.uniform(outcome.first_write_s, whole))
        except subprocess.TimeoutExpired as late:
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate()
            outcome.moments_s.append(round(late.timeout, 2))
            print(f"{command}: killed after {late.timeout:.1f} s", flush=True)  # noqa: T201
            continue
        finish(job)
        found = contents(folder)
        outcome.unlike += sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        outcome.ends, fresh = outcome.ends + 1, True
        shutil.rmtree(folder)
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("commands", nargs="*", metavar="command", default=list(COMMANDS))
    chosen = parser.parse_args()
    outcomes = []
    for command in chosen.commands:
        with TemporaryDirectory() as place:
            outcome = killed_at(command, chosen.points, chosen.seed, Path(place))
        outcomes.append(outcome)
        print(f"{command}: {len(outcome.moments_s)} kills, {outcome.ends} ends, unlike: {outcome.unlike}", flush=True)  # noqa: T201
        if chosen.json:
            chosen.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=2) + "\n")
    sys.exit(any(outcome.unlike for outcome in outcomes))
