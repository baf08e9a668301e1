"""Runs train.py, analyze.py, intervene.py or `bisae pretrain` in this process and kills it (SIGKILL) at a chosen call.

    python -m tests.killed train|ahead|analyze|intervene|pretrain <place> <call> [override ...]

`ahead` is train.py whose batches are made, and whose LM runs, in threads as on a GPU.

Places: `before-rename` and `after-rename` (of any file: shards, manifests, saves, cells), `step` (the start of a
training step), `told` (the same, by SIGTERM), `rank-1` (the same, but the first rank that this process has started is
killed), `resumed-step` (a training step after going on from a save), `lm-thread` (an LM pass in the thread that `ahead`
has for them), `at-cell` (before a cell is written), `never`.
"""

import os
import runpy
import signal
import sys
import threading
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


def work_ahead() -> None:
    """Make batches, and run the LM, in threads, but in memory that is not pinned, for which there has to be a GPU."""
    from bisae.activations.streaming import Streaming
    from bisae.training.data import ActivationData

    opened, init = Streaming.open, ActivationData.__init__

    def open_ahead(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return opened(self, *arguments, **{**keywords, "on_gpu": True})

    def init_ahead(self: Any, *arguments: Any) -> None:
        init(self, *arguments)
        self.ahead = True

    Streaming.open = open_ahead  # type: ignore[method-assign]
    ActivationData.__init__ = init_ahead  # type: ignore[assignment, method-assign]


def arm(command: str, place: str, call: int) -> None:
    """Plant the kill."""
    if place in ("before-rename", "after-rename"):
        os.replace = killing(os.replace, call, after=place == "after-rename")
    elif place == "at-cell":
        from bisae.cells.cell import Cell

        Cell.write = killing(Cell.write, call)  # type: ignore[method-assign]
    elif place == "lm-thread":
        from bisae.lm.lm_pass import LMPass

        plain = LMPass.activations
        deadly = killing(plain, call)

        def activations(self: Any, *arguments: Any) -> Any:
            there = threading.current_thread().name.startswith("activation-lm")
            return (deadly if there else plain)(self, *arguments)

        LMPass.activations = activations  # type: ignore[assignment, method-assign]
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

        module: Any = LadderModule if command == "pretrain" else SAETraining
        original = module.training_step
        armed = killing(original, call, by=signal.SIGTERM if place == "told" else signal.SIGKILL)

        def training_step(self: Any, *arguments: Any) -> Any:
            fresh = place == "resumed-step" and self.trainer.ckpt_path is None
            return (original if fresh else armed)(self, *arguments)

        module.training_step = training_step


if __name__ == "__main__":
    command, place, call, *overrides = sys.argv[1:]
    arm(command, place, int(call))
    if command == "ahead":
        work_ahead()
        command = "train"
    if command != "pretrain":
        sys.argv = [str(Path(__file__).parents[1] / f"{command}.py"), *overrides]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.argv = ["bisae.cli.pretrain", *overrides]
        runpy.run_module("bisae.cli.pretrain", run_name="__main__")
