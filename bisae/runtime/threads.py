"""Set the number of CPU threads to the number of idle cores, or to OMP_NUM_THREADS.

A step of an SAE has many short parallel regions. With one thread more than idle cores, each region waits for a thread
that does not run, and the step takes several times as long as on one thread.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

STAT = Path("/proc/stat")  # Linux; elsewhere torch's own number stays
EVERY = 2.0  # seconds between two looks
FIRST = 0.2
MOST = 8  # threads of `in_order`: what each works on is in RAM

Item = TypeVar("Item")
Result = TypeVar("Result")


class Look(NamedTuple):
    """Seconds: of the clock, of all cores' work, and of the work of this process."""

    clock: float
    busy: float
    own: float


def look() -> Look:
    """Measure the cores that this process may use."""
    cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in STAT.read_text().splitlines()]
    # user, nice, system, -, -, irq, softirq, steal; left out are idle and iowait
    ticks = sum(int(line[part]) for line in lines if line[0] in cores for part in (1, 2, 3, 6, 7, 8))
    own = os.times()
    return Look(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), own.user + own.system)


def idle_cores(before: Look, after: Look, cores: int) -> int:
    """Return the number of cores that other processes left idle between two looks; at least 1."""
    others = (after.busy - before.busy) - (after.own - before.own)
    return min(cores, max(1, round(cores - others / (after.clock - before.clock))))


_last: Look | None = None


def follow_idle_cores() -> None:
    """Set torch's number of threads; call it between pieces of work, as often as you like."""
    global _last
    if "OMP_NUM_THREADS" in os.environ or not STAT.exists():
        return
    import torch  # slow

    if _last is None:
        _last = look()
        time.sleep(FIRST)
    elif time.monotonic() - _last.clock < EVERY:
        return
    before, _last = _last, look()
    threads = idle_cores(before, _last, len(os.sched_getaffinity(0)))
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Like `map`, on as many threads as torch has, for work that NumPy does without Python's global lock.

    Items are drawn in this thread, at most one more than there are threads before a result is taken. Until the end
    torch has one thread: its regions would wait for cores on which this work runs.
    """
    import torch  # slow

    usual = torch.get_num_threads()
    threads = min(MOST, usual)
    if threads == 1:
        yield from map(work, items)
        return
    begun: deque[Future[Result]] = deque()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
    finally:
        torch.set_num_threads(usual)
