"""What the benchmarks share: works that take turns, their ratios, and rows that say where they were measured.

A time is the CPU time of this process on one thread, unless said otherwise: other processes disturb it only through the
caches, and disks and other threads are paid for, not waited for.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

# Imported before `steps`, `work` and bisae, which lie there.
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "peers")]

Times = dict[str, list[float]]


def options(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark can be asked; with it the process gets one thread."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where rows are written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="only a tiny shape, to see that it runs")
    return parser


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> Times:
    """Seconds of each work in every round, after one round that does not count."""
    found: Times = {name: [] for name in works}
    for _ in range(1 + rounds):
        for name, work in works.items():
            start = clock()
            work()
            found[name].append(clock() - start)
    return {name: times[1:] for name, times in found.items()}


def ratio(times: Times, above: str, below: str, scale: float = 1.0) -> float:
    """The median over rounds of `above / below`, times `scale`."""
    return scale * median(a / b for a, b in zip(times[above], times[below], strict=True))


def show(row: Mapping[str, Any]) -> None:
    """A row as a line."""
    print("  ".join(f"{name} {value:.4g}" if isinstance(value, float) else str(value) for name, value in row.items()))  # noqa: T201


def write(path: Path | None, rows: list[dict[str, Any]]) -> None:
    """The rows, with machine and versions, as sae_step.py writes its own."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    about = {"machine": machine("cpu"), "cores": os.cpu_count(), **versions}
    if path:
        path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def machine(device: str) -> str:
    """The processor and which of the instructions that matter it has, or the GPU."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = {"avx512f", "avx512_bf16", "amx_bf16"} & set(known.get("flags", "").split())
    return f"{known.get('model name', platform.processor())} ({', '.join(sorted(flags))})"
