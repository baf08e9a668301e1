"""Progress bars."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bisae.runtime.threads import follow_idle_cores


@contextmanager
def tokens_bar(title: str, unit: str = "tokens") -> Iterator[Callable[[int, int], None]]:
    """Yield a function `report(done, total)`: its first call shows a progress bar, later calls update it.

    Each call of `report` also sets the number of threads to suit the idle cores.
    """
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit + " {task.fields[rate]}"))
    progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn())

    def report(done: int, total: int) -> None:
        follow_idle_cores()
        if not progress.tasks:
            progress.start()
            progress.add_task(title, total=total, completed=done, rate="")
        speed = progress.tasks[0].speed
        progress.update(progress.tasks[0].id, total=total, completed=done, rate=f"{speed:,.0f}/s" if speed else "")

    try:
        yield report
    finally:
        if progress.tasks:
            progress.stop()
