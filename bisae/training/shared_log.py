"""Metrics of ranks that each train members of their own: rank 0 logs them all."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import distributed

from bisae.runtime.ranks import Part

Log = Callable[[str, Mapping[str, float], int], None]  # of a run: its metrics after so many tokens


class SharedLog:
    """Logs at once on rank 0; what other ranks log waits until all meet."""

    def __init__(self, log: Log, part: Part) -> None:
        """`log`: of rank 0; `part`: this process among those that each train members of their own."""
        self.log, self.part = log, part
        self._waiting: list[tuple[str, dict[str, float], int]] = []

    def __call__(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        if self.part.rank == 0:
            self.log(run, metrics, tokens)
        else:
            self._waiting.append((run, dict(metrics), tokens))

    def meet(self, own: Any = None) -> list[Any]:
        """All ranks call this at the same time: what waits is logged. Returns the `own` of every rank."""
        found: list[Any] = [(self._waiting, own)]
        if self.part.world > 1:
            found = found * self.part.world
            distributed.all_gather_object(found, found[0])
        self._waiting = []
        for waiting, _ in found if self.part.rank == 0 else ():
            for one in waiting:
                self.log(*one)
        return [value for _, value in found]
