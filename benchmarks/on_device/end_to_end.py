"""The default job by its command, where all that it needs is installed."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from on_device import STAND_INS
from on_device.timing import Budget

NEEDED = (
    "lightning",
    "hydra",
    "omegaconf",
    "transformers",
    "datasets",
    "wandb",
    "pydantic",
    "torchmetrics",
    "jaxtyping",
)
ROOT = Path(__file__).parents[2]


def end_to_end(budget: Budget) -> Iterator[dict[str, Any]]:
    """One row: seconds of `python train.py`, or what is missing."""
    missing = [name for name in NEEDED if name in STAND_INS or importlib.util.find_spec(name) is None]
    if missing or budget.smoke:
        yield {"skipped": f"not installed: {', '.join(missing)}" if missing else "a smoke run"}
        return
    with TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "train.py"),
            f"runs={folder}/runs",
            f"cache={folder}/cache",
            "logger=none",
        ]
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=max(1.0, budget.left),
        )
        if done.returncode:
            raise RuntimeError(f"train.py ended with status {done.returncode}: {done.stderr[-500:]}")
        yield {"command": "python train.py logger=none", "seconds": time.perf_counter() - start}
