"""A training that is killed and goes on from its save has the bits of one that was not.

python benchmarks/on_device/resume.py PART FOLDER SMOKE is one process of the stage: `killed` trains every backend past
its save and is then killed; `resumed` goes on in a new process. The stage itself trains without interruption.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path[:0] = [str(here.parents[1]), str(here.parent), str(here.parent / "peers")]
import torch
from work import Shape, work

from on_device.about import DEVICE
from on_device.backends import Backend, Training, backends

if TYPE_CHECKING:
    from on_device.timing import Budget

STEPS, SAVED = 6, 3


def resume(budget: "Budget") -> Iterator[dict[str, Any]]:
    """A row a backend: whether both ended with the same bits, and the signal that ended the killed one."""
    with TemporaryDirectory() as folder:
        asked = [sys.executable, __file__]
        statuses = [
            subprocess.run([*asked, part, folder, str(int(budget.smoke))], timeout=max(1.0, budget.left)).returncode
            for part in ("killed", "resumed")
        ]
        if statuses != [-signal.SIGKILL, 0]:
            raise RuntimeError(f"the processes ended with {statuses}")
        for number, backend in enumerate(backends()):
            whole = _train(backend, budget.smoke, 0, STEPS).bits()
            resumed = Path(folder, f"{number}.bits").read_text()
            yield {
                "backend": backend.name,
                "precision": backend.precision,
                "killed_by": -statuses[0],
                "bit_equal": whole == resumed,
            }


def _train(backend: Backend, smoke: bool, first: int, last: int, save: Path | None = None) -> Training:
    """A training of the steps from `first`, which goes on from `save` where it does not begin, and else writes it."""
    shape, k = (Shape(32, 256, 96), 8) if smoke else (Shape(1024, 8192, 4096), 32)
    directions, batches = work(shape, 0, DEVICE.type)
    training = Training(backend, directions, k)
    if save and first:
        training.load(torch.load(save, weights_only=True))
    for number in range(first, last):
        training.step(batches[number % len(batches)])
        if save and not first and number + 1 == SAVED:
            torch.save(training.state(), save)
    return training


def main(part: str, folder: Path, smoke: bool) -> None:
    for number, backend in enumerate(backends()):
        save = folder / f"{number}.save"
        if part == "killed":
            _train(backend, smoke, 0, SAVED + 1, save)
        else:
            (folder / f"{number}.bits").write_text(_train(backend, smoke, SAVED, STEPS, save).bits())
    if part == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "1")
