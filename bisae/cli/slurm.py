"""Sweeps on SLURM, whose jobs submitit starts: why one was told to stop, and how it ends."""

import atexit
import functools
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bisae.runtime.errors import STOPPED


def answer_sigterm() -> None:
    """After a job has ended by SIGTERM: submit it again if it was preempted; return if it was cancelled.

    SLURM sends SIGTERM in all cases; what it knows of the job differs. A job of a partition without GraceTime is
    requeued by SLURM before it is told: it leaves no result, since it has not ended.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
        import submitit

        asked = ["scontrol", "show", "job", "--oneliner", submitit.JobEnvironment().job_id]
        known = subprocess.run(asked, capture_output=True, text=True, timeout=60).stdout
        said = dict(re.findall(r"(\S+?)=(\S*)", known))
        if int(said.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0)):
            sys.exit(STOPPED)
        if said.get("PreemptTime", "None") == "None" and said:
            return
    signal.raise_signal(signal.SIGUSR2)


def end_as_failed() -> None:
    """Under submitit this process, whose job has failed, will end with status 1 once its result is written."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        logging.getLogger("submitit").setLevel(logging.ERROR)  # "Job completed successfully"
        atexit.register(os._exit, 1)


def one_line_for_each_failure(sweep: Path) -> None:
    """Make a refused submission end the submitting command with a line, and a lost job a failed job of the sweep.

    A job is lost if it leaves no result: cancelled before it began, or killed with its node. Without this, submitit's
    exception would end the command, and the other jobs' cells would not be shown.
    """
    try:
        from hydra.core.utils import JobReturn, JobStatus
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
        from submitit import Job
        from submitit.core.utils import FailedJobError, UncompletedJobError
    except ImportError:
        return
    launch, results = BaseSubmititLauncher.launch, Job.results

    @functools.wraps(launch)
    def launched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        try:
            return launch(self, *arguments, **keywords)
        except (FailedJobError, RuntimeError) as error:
            said = [line for line in str(error).splitlines() if "error:" in line] or [str(error).strip()]
            gpus = "; without GPUs: hydra.launcher.gpus_per_node=null" if "gres" in str(error) else ""
            raise SystemExit(f"error: hydra.launcher: {said[-1].strip()}{gpus}") from None

    @functools.wraps(results)
    def waited(job: Any) -> Any:
        try:
            return results(job)
        except (UncompletedJobError, FailedJobError):
            overrides, _, number, *_ = job.submission().args
            folder = sweep / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "overrides").write_text("\n".join(overrides), encoding="utf-8")
            with suppress(FileExistsError), (folder / "error").open("x", encoding="utf-8") as file:
                log = f"; its log: {job.paths.stderr}" if job.paths.stderr.exists() else ""
                file.write(f"left no result, SLURM says {job.state}{log}")
            return [JobReturn(status=JobStatus.COMPLETED)]

    BaseSubmititLauncher.launch = launched
    Job.results = waited  # type: ignore[method-assign, assignment]
