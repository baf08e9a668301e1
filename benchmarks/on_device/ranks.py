"""Two members of one stream in two processes that share this device, with rows sent by gloo.

No several GPUs: it shows that the members are those of a job alone, not how quick many devices are.
"""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from work import Shape, work

from on_device.about import DEVICE
from on_device.backends import Training, backends
from on_device.timing import Budget

WORLD, STEPS = 2, 3


def _sizes(smoke: bool) -> tuple[Shape, int]:
    return (Shape(32, 256, 96), 8) if smoke else (Shape(1024, 8192, 4096), 32)


def _member(rank: int, batches: Iterator[torch.Tensor], smoke: bool) -> str:
    shape, k = _sizes(smoke)
    directions, _ = work(shape, rank, DEVICE.type)  # each member from a start of its own
    training = Training(backends()[0], directions, k)
    for x in batches:
        training.step(x.to(DEVICE))
    return training.bits()


def _process(rank: int, port: int, folder: str, smoke: bool) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    shape, _ = _sizes(smoke)
    rows = [x.cpu() for x in work(shape, 0, DEVICE.type)[1]]

    def sent() -> Iterator[torch.Tensor]:
        for number in range(STEPS):
            x = rows[number] if rank == 0 else torch.empty_like(rows[number])
            distributed.broadcast(x, src=0)
            yield x

    Path(folder, str(rank)).write_text(_member(rank, sent(), smoke))
    distributed.destroy_process_group()


def ranks(budget: Budget) -> Iterator[dict[str, Any]]:
    """One row: whether each member has the bits of a job alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shape, _ = _sizes(budget.smoke)
    with tempfile.TemporaryDirectory() as folder:
        started = multiprocessing.spawn(_process, (port, folder, budget.smoke), nprocs=WORLD, join=False)
        rows = work(shape, 0, DEVICE.type)[1][:STEPS]
        alone = [_member(rank, iter(rows), budget.smoke) for rank in range(WORLD)]
        while not started.join(timeout=1.0):
            if not budget.allows(0):
                raise TimeoutError("the processes did not end")
        together = [Path(folder, str(rank)).read_text() for rank in range(WORLD)]
    yield {"processes": WORLD, "devices": 1, "messages": "gloo", "bit_equal": together == alone}
