"""How far long work is: a bar in a terminal, else a line a minute in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bisae.runtime.threads import follow_idle_cores

log = logging.getLogger("bisae.progress")
EVERY = 60.0  # seconds between two lines
TIMES = 2 * len(" 0:00:00")  # columns of a terminal
WIDEST_BAR = 40


class LogLines:
    """Says in the log, at most once in `EVERY` seconds, how much is done and how long the rest takes."""

    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit = title, unit
        self._last = time.monotonic(), 0

    def restart(self, done: int) -> None:
        """So much is done already, of earlier runs for example: it says nothing about speed."""
        self._last = time.monotonic(), done

    def report(self, done: int, total: int, more: str = "") -> None:
        now, (before, done_before) = time.monotonic(), self._last
        if now - before < EVERY or done <= done_before:
            return
        rate = (done - done_before) / (now - before)
        left = timedelta(seconds=round((total - done) / rate))
        log.info("%s: %s of %s %s%s, %s left", self.title, f"{done:,}", f"{total:,}", self.unit, more, left)
        self._last = now, done


@contextmanager
def tokens_bar(title: str, unit: str = "tokens") -> Iterator[Callable[[int, int], None]]:
    """Yield a function `report(done, total)`: its first call shows a progress bar, later calls update it.

    Without a terminal it says so in the log, a line a minute. Each call of `report` also sets the number of threads to
    suit the idle cores.
    """
    console, lines, bars = Console(), LogLines(title, unit), list[Progress]()

    def report(done: int, total: int) -> None:
        follow_idle_cores()
        if not console.is_terminal:
            lines.report(done, total)
            return
        if not bars:
            taken = len(f"{title} {total}/{total} {unit} 1,000,000/s") + TIMES
            bar = BarColumn(max(1, min(WIDEST_BAR, console.width - taken - 1)))
            counts = (MofNCompleteColumn(), TextColumn(unit + " {task.fields[rate]}"))
            columns = (TextColumn(title, markup=False), bar, *counts, TimeElapsedColumn(), TimeRemainingColumn())
            bars.append(Progress(*columns, console=console))
            bars[0].start()
            bars[0].add_task(title, total=total, completed=done, rate="")
        (progress,) = bars
        speed = progress.tasks[0].speed
        progress.update(progress.tasks[0].id, total=total, completed=done, rate=f"{speed:,.0f}/s" if speed else "")

    try:
        yield report
    finally:
        for progress in bars:
            progress.stop()
