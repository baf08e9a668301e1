"""Run other commands of bisae first, each in its own process."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from bisae.runtime.errors import AnalysisFailed, TrainingFailed

CLI = Path(__file__).parents[1] / "cli"
SAFE_PATH = ("-P",)  # or bisae/cli/evaluate.py would stand in for the library `evaluate`


def with_this_code(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` for a new process that imports this copy of bisae, and modules that this process finds."""
    before = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
    places = [str(CLI.parents[1]), *(os.path.abspath(place) for place in sys.path[:1]), *before]
    return {**environment, "PYTHONPATH": os.pathsep.join(dict.fromkeys(places))}


def config_flags(*providers: str) -> list[str]:
    """Return options with which another command reads the same configs: --config-path (main), --config-dir."""
    flags = {"main": "--config-path", "command-line": "--config-dir"}
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return [f"{flags[source.provider]}={source.path}" for source in sources if source.provider in providers]


def typed(group: str) -> list[str]:
    """The overrides of a config group, and of keys below it, as the user typed them for this command."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [one for one in overrides if re.match(rf"[+~]*{group}[=.@]", one)]


def run_first(script: str, jobs: Sequence[Sequence[str]], shared: Sequence[str]) -> None:
    """Run train.py or analyze.py with each job's overrides and the shared ones; a finished job only starts and ends.

    Jobs log as this command does, unless their overrides say otherwise.

    Raises TrainingFailed or AnalysisFailed if a job fails.
    """
    failed = {"train.py": TrainingFailed, "analyze.py": AnalysisFailed}[script]
    for job in jobs:
        where = config_flags("command-line")
        command = [sys.executable, *SAFE_PATH, str(CLI / script), *where, *typed("logger"), *job, *shared]
        if status := subprocess.run(command, env=with_this_code(os.environ)).returncode:
            raise failed(f"{script} {' '.join(job)} ended with status {status}")
