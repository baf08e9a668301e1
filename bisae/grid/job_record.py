"""Records of a grid's jobs: which are running, and how the others ended.

<runs>/.grid/<model>-<checkpoint>-<8 hex digits of the job's overrides>.json, and .lock while the job runs
"""

import hashlib
import json
import os
import re
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf

from bisae.lm.model import read_at
from bisae.runtime.atomic import write_json
from bisae.runtime.values import listed

FOLDER = ".grid"
PATIENCE = 1.0  # seconds that a look at the lock may hold it


@dataclass(frozen=True)
class JobRecord:
    """A job of a grid.

    Attributes:
        checkpoint: a step or `final`.
        layers: numbers or "all".
        host, process: where it started last.
        started: seconds since the epoch.
        seconds: worked in all its earlier runs.
        ended: seconds since the epoch; None while it runs, or if it was killed.
        error: of a failed job.
    """

    model: str
    checkpoint: int | str
    layers: list[int | str]
    host: str
    process: int
    started: float
    seconds: float
    ended: float | None
    error: str | None


class Record(Callback):
    """Hydra callback that writes the `JobRecord` of each job of a sweep, and never stops a job."""

    def __init__(self) -> None:
        self._kept: tuple[Path, FileLock, JobRecord] | None = None

    def __getstate__(self) -> dict[str, None]:
        """Launchers pickle the callback, submitit also while a job runs; the lock cannot go to another process."""
        return {"_kept": None}

    def on_job_start(self, config: Any, **_: Any) -> None:
        """In a sweep, take the job's lock and write its record; nothing is done if it runs elsewhere too."""
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            return
        with suppress(OSError, Timeout):
            overrides = "\n".join(sorted(HydraConfig.get().overrides.task))
            digest = hashlib.sha256(overrides.encode()).hexdigest()[:8]
            model = read_at(config.model.name, OmegaConf.select(config, "model.hook"))
            name = re.sub(r"[^\w.-]", "_", f"{model}-{config.checkpoint}-{digest}")
            file = Path(config.runs) / FOLDER / f"{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file.with_suffix(".lock"))
            lock.acquire(timeout=PATIENCE)
            before = read_record(file)
            layers = list(listed(config.layer if isinstance(config.layer, int | str) else list(config.layer)))
            start = (model, config.checkpoint, layers, socket.gethostname(), os.getpid(), time.time())
            record = JobRecord(*start, before.seconds if before else 0.0, None, None)
            write_json(file, asdict(record))
            self._kept = file, lock, record

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """Record how the job ended; `bisae.cli.sweep` leaves an error in the job's folder."""
        if self._kept is None:
            return
        (file, lock, record), self._kept = self._kept, None
        with suppress(OSError):
            failure, now = Path(HydraConfig.get().runtime.output_dir) / "error", time.time()
            error = failure.read_text(encoding="utf-8") if failure.exists() else None
            spent = record.seconds + max(0.0, now - record.started)  # the clock may be set back
            write_json(file, {**asdict(record), "seconds": spent, "ended": now, "error": error})
        lock.release()


def read_record(file: Path) -> JobRecord | None:
    """The record in `file`; None if it is missing or damaged."""
    try:
        return JobRecord(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def runs_now(file: Path) -> bool:
    """True if the process of the record in `file` still holds its lock."""
    lock = FileLock(file.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # no permission
        return False
    lock.release()
    return False
