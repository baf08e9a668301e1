"""All loggers of a command, told the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisae.cells.find import FoundCell
from bisae.config.instantiate import instantiate
from bisae.config.objects import Node, separate, target_of
from bisae.runtime.errors import ConfigError
from bisae.training.run_log import LightningRuns, RunLog
from bisae.training.wandb_runs import WandbRuns


class CellLoggers:
    """The loggers of config group `logger`: W&B, Lightning's, users' own, several at once, or none."""

    def __init__(self, node: Node, runs: str, cells: int = 1) -> None:
        """Make the loggers; whatever cannot work is refused here.

        Args:
            node: an object, or several by name, perhaps beside it (`bisae.config.objects.separate`).
            runs: where W&B's files go, unless `folder` says so.
            cells: how many the job has.

        Raises:
            ConfigError: no logger of W&B's or Lightning's, or one whose package is missing, or that would mix the
                metrics of several cells.
        """
        self.all: list[RunLog] = []
        self.wandb: list[WandbRuns] = []  # of them
        self.places: list[str] = []  # of the others
        for key, settings in separate("logger", node).items():
            target = target_of(key, settings)
            if isinstance(target, type) and issubclass(target, WandbRuns):
                folder = settings.get("folder") or runs
                self.wandb.append(instantiate({**settings, "folder": folder}, key))
                self.all.append(self.wandb[-1])
                continue
            from lightning.pytorch.loggers import Logger  # slow to import

            if not (isinstance(target, type) and issubclass(target, Logger)):
                raise ConfigError(f"{key}._target_", settings["_target_"], "must be a lightning.pytorch.loggers.Logger")
            runs_of_cells = LightningRuns(key, settings)
            if cells > 1 and not runs_of_cells.tells_cells_apart:
                remedy = "has one place for the cells of this job: put {cell}, {run} or {name} into one of its texts"
                raise ConfigError(f"{key}._target_", settings["_target_"], remedy)
            self.all.append(runs_of_cells)
            if place := settings.get("save_dir") or settings.get("tracking_uri"):
                self.places.append(f"{target.__name__}: {place}")

    def open(self, run: str, name: str, group: str, axes: Mapping[str, Any], alone: bool = False) -> None:
        for logger in self.all:
            logger.open(run, name, group, axes, alone)

    @property
    def ids(self) -> dict[str, str]:
        """The ids that W&B has given the runs of cells: their own, but under `wandb agent`."""
        return {run: given for logger in self.wandb for run, given in logger.ids.items()}

    def check_agent(self, key: str, found: object, cells: int) -> None:
        """Under `wandb agent`: ConfigError if several `cells` would share its run; `key` makes them so."""
        if cells > 1 and any(logger.mode != "disabled" for logger in self.wandb):
            remedy = f"these {cells} SAEs would share the run of `wandb agent`: train one SAE a run, or use logger=none"
            raise ConfigError(key, found, remedy)

    def log(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        for logger in self.all:
            logger.log(run, metrics, tokens)

    def log_cell(self, run: str, folder: Path) -> None:
        for logger in self.all:
            logger.log_cell(run, folder)

    def finish(self, run: str, summary: Mapping[str, Any], failed: bool = False) -> None:
        for logger in self.all:
            logger.finish(run, summary, failed)

    def close(self) -> None:
        for logger in self.all:
            logger.close()

    def log_report(self, *what: Any) -> None:
        """See `WandbRuns.log_report`; other loggers have no reports."""
        for logger in self.wandb:
            logger.log_report(*what)

    def add(self, cell: FoundCell, lm: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """See `WandbRuns.add`; other loggers have training only."""
        for logger in self.wandb:
            logger.add(cell, lm, figures)
