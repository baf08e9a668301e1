"""Times of works that take turns, and how much time is left."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

from on_device.about import DEVICE


class Budget:
    """When a stage must end. `cut` says whether something was left out for lack of time."""

    def __init__(self, ends: float, smoke: bool) -> None:
        self.ends, self.smoke, self.cut = ends, smoke, False

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    def allows(self, seconds: float) -> bool:
        """Whether there is time for work of so many seconds."""
        if self.left < seconds:
            self.cut = True
        return self.left >= seconds


def wait() -> None:
    """Until the device has done all it was asked."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each work in every round; rounds before count `warm` do not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(warm + rounds):
        for name, work in works.items():
            took = seconds(work)
            if number >= warm:
                found[name].append(took)
    return found


def ratio(times: Mapping[str, list[float]], above: str, below: str) -> float:
    """The median over rounds of `above / below`."""
    return median(a / b for a, b in zip(times[above], times[below], strict=True))


def allocated() -> int:
    """Bytes of the device that are in use now; 0 on a CPU."""
    return int(torch.cuda.memory_allocated()) if DEVICE.type == "cuda" else 0


def peak(work: Callable[[], object]) -> int | None:
    """Bytes of the device in use at most while `work` ran, with all that was there before; None on a CPU."""
    if DEVICE.type != "cuda":
        work()
        return None
    wait()
    torch.cuda.reset_peak_memory_stats()
    work()
    wait()
    return int(torch.cuda.max_memory_allocated())
