"""Runs train.py, analyze.py, intervene.py or `bisae pretrain` in this process and kills it (SIGKILL) at a chosen call.

    python -m tests.killed train|analyze|intervene|pretrain <place> <call> [override ...]

Places: `before-rename` and `after-rename` (of any file: shards, manifests, saves, cells), `step` (the start of a
training step), `told` (the same, by SIGTERM), `rank-1` (the same, but the first rank that this process has started is
killed), `resumed-step` (a training step after going on from a save), `at-cell` (before a cell is written), `never`.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def killing(
    function: Callable[..., Any], call: int, after: bool = False, by: signal.Signals = signal.SIGKILL
) -> Callable[..., Any]:
    """`function`, but the process dies at its `call`-th call (from 1), unless it survives the signal."""
    calls = 0

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), by)
        result = function(*arguments, **keywords)
        if calls == call and after:
            os.kill(os.getpid(), by)
        return result

    return wrapped


def arm(command: str, place: str, call: int) -> None:
    """Plant the kill."""
    if place in ("before-rename", "after-rename"):
        os.replace = killing(os.replace, call, after=place == "after-rename")
    elif place == "at-cell":
        from bisae.cells.cell import Cell

        Cell.write = killing(Cell.write, call)  # type: ignore[method-assign]
    elif place == "rank-1":
        from bisae.training.module import SAETraining

        of_this, calls = SAETraining.training_step, iter(range(1, 10**9))

        def killing_another(self: Any, *arguments: Any) -> Any:
            if next(calls) == call:
                self.trainer.strategy.launcher.procs[0].kill()
            return of_this(self, *arguments)

        SAETraining.training_step = killing_another  # type: ignore[assignment, method-assign]
    elif place in ("step", "told", "resumed-step"):
        from bisae.pretrain.ladder import LadderModule
        from bisae.training.module import SAETraining

        module: Any = SAETraining if command == "train" else LadderModule
        original = module.training_step
        armed = killing(original, call, by=signal.SIGTERM if place == "told" else signal.SIGKILL)

        def training_step(self: Any, *arguments: Any) -> Any:
            fresh = place == "resumed-step" and self.trainer.ckpt_path is None
            return (original if fresh else armed)(self, *arguments)

        module.training_step = training_step


if __name__ == "__main__":
    command, place, call, *overrides = sys.argv[1:]
    arm(command, place, int(call))
    if command != "pretrain":
        sys.argv = [str(Path(__file__).parents[1] / f"{command}.py"), *overrides]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.argv = ["bisae.cli.pretrain", *overrides]
        runpy.run_module("bisae.cli.pretrain", run_name="__main__")
