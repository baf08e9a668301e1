"""Where the metrics of cells go: each cell has a run in every logger of config group `logger`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException

from bisae.config.instantiate import instantiate
from bisae.config.objects import Node, target_of
from bisae.runtime.errors import ConfigError

# Of loggers whose packages are not installed with Lightning: what is imported, and what pip calls it.
PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboard"),
    "MLFlowLogger": ("mlflow", "mlflow-skinny sqlalchemy alembic"),
}


class RunLog:
    """The runs of one logger that are open, by id. Whatever it raises is said once, and ends that run, not the job."""

    title = "logger"
    log_to = logging.getLogger("bisae.logger")

    def __init__(self) -> None:
        self._runs: dict[str, Any] = {}

    @contextmanager
    def tried(self, run: str) -> Iterator[None]:
        """Inside, an error gives up the run."""
        try:
            yield
        except Exception as error:  # a logger may fail in any way; the job goes on
            self._give_up(run, error)

    def _give_up(self, run: str, error: Exception) -> None:
        self._runs.pop(run, None)
        if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        told, first = "%s run %s is given up, the work goes on: %s: %s", str(error).partition("\n")[0]
        self.log_to.warning(told, self.title, run, type(error).__name__, first)

    def open(self, run: str, name: str, group: str, axes: Mapping[str, Any], alone: bool = False) -> None:
        """Start the run of a cell with id `run`, or go on in it.

        Args:
            run: the same whenever the same cell is trained.
            name: for people.
            group: the sweep or job.
            axes: what dashboards key on, and `config`, the resolved config.
            alone: whether no other run is to be told from it.
        """
        raise NotImplementedError

    def log(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        """Log metrics of one run against tokens seen by the SAE."""
        raise NotImplementedError

    def log_cell(self, run: str, folder: Path) -> None:
        """Log where the finished cell lies, if the logger has a place for it."""

    def finish(self, run: str, summary: Mapping[str, Any], failed: bool = False) -> None:
        """Close one run with its final metrics."""
        raise NotImplementedError

    def close(self) -> None:
        """Close what is still open: the job ended before these cells did."""
        for run in list(self._runs):
            self.finish(run, {}, failed=True)


class LightningRuns(RunLog):
    """The runs of cells in one of Lightning's loggers, or a subclass of `lightning.pytorch.loggers.Logger`.

    Each cell has an instance of its own, made from a config node in whose texts {cell}, {run} and {name} stand for
    the cell's path below `runs`, the id of its run, and its name.
    """

    def __init__(self, key: str, node: Node) -> None:
        super().__init__()
        self.key, self.node = key, node
        self.title = target_of(key, node).__name__
        module, package = PACKAGES.get(self.title, ("", ""))
        if module and find_spec(module) is None:
            raise ConfigError(f"{key}._target_", self.title, f"needs a package: pip install {package}")

    def open(self, run: str, name: str, group: str, axes: Mapping[str, Any], alone: bool = False) -> None:
        texts = {"{cell}": str(axes["cell"]), "{run}": run, "{name}": name}
        with self.tried(run):
            self._runs[run] = instantiate(_filled(self.node, texts), self.key)
            self._runs[run].log_hyperparams(dict(axes))

    def log(self, run: str, metrics: Mapping[str, float], tokens: int) -> None:
        if run in self._runs:
            with self.tried(run):
                self._runs[run].log_metrics(dict(metrics), step=tokens)
                self._runs[run].save()

    def finish(self, run: str, summary: Mapping[str, Any], failed: bool = False) -> None:
        if run in self._runs:
            with self.tried(run):
                self._runs.pop(run).finalize("failed" if failed else "success")

    @property
    def tells_cells_apart(self) -> bool:
        return _filled(self.node, dict.fromkeys(("{cell}", "{run}", "{name}"), "")) != self.node


def _filled(node: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(node, Mapping):
        return {key: _filled(value, texts) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, texts) for value in node]
    if isinstance(node, str):
        for name, text in texts.items():
            node = node.replace(name, text)
    return node
