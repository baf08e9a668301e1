"""How far training is, in a terminal and in the log of a job without one."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from bisae.runtime.progress import LogLines


def progress_bar() -> ProgressBar:
    """A bar of one line in a terminal, else a line a minute in the log."""
    return OneLine() if Console().is_terminal else MinuteLines()


class OneLine(RichProgressBar):
    """Lightning's bar with the columns that fit into 80: epoch, batches, time left, and the metrics."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=",.5g"))

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        return [TextColumn("{task.description}"), BarColumn(10), MofNCompleteColumn(), TimeRemainingColumn()]


class MinuteLines(ProgressBar):
    """Steps, metrics and time left, once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.enabled = LogLines("training", "steps"), True

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:  # Lightning's way to keep the ranks above 0 quiet
        self.enabled = False

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self.lines.restart(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.enabled:
            metrics = "".join(f", {name} {value:,.5g}" for name, value in trainer.progress_bar_metrics.items())
            self.lines.report(trainer.global_step, int(trainer.estimated_stepping_batches), metrics)
