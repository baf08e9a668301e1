"""Search: a sweep whose jobs Optuna proposes, one after the other (hydra/sweeper=optuna).

Only its cells are kept of a search. A seeded sampler proposes the same trials again as long as it is told the same
values, and trials whose cells are finished answer at once: the same command goes on after a kill.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf
from optuna import create_study
from optuna import logging as optuna_logging
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from bisae.cells.shown import cells_of_jobs
from bisae.metrics import RECONSTRUCTION
from bisae.runtime.atomic import write_text
from bisae.runtime.errors import ConfigError

log = logging.getLogger("bisae.search")
optuna_logging.set_verbosity(optuna_logging.WARNING)


def refused(key: str, found: object, remedy: str) -> SystemExit:
    """Return the exit that ends a search with a refusal, since Hydra shows errors of its plugins otherwise."""
    return SystemExit(f"error: {ConfigError(key, found, remedy)}")


def distribution_of(override: Override) -> BaseDistribution:
    """What Optuna draws from, of a swept override: an interval, a range, or choices as they are typed."""
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        low, high = swept.start, swept.end
        whole = isinstance(low, int) and isinstance(high, int)
        return (IntDistribution if whole else FloatDistribution)(low, high, log="log" in swept.tags)  # type: ignore[arg-type]
    if isinstance(swept, RangeSweep) and not swept.shuffle:
        values = sorted(swept.range())  # without `stop`, as everywhere in Hydra
        whole = all(isinstance(value, int) for value in values)
        return (IntDistribution if whole else FloatDistribution)(values[0], values[-1], step=abs(swept.step))  # type: ignore[arg-type]
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def space_of(overrides: Sequence[Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """The swept keys with what is drawn for each, and the other overrides as typed; of a key the last counts."""
    last = {override.get_key_element().lstrip("+~"): override for override in overrides}
    space = {one.get_key_element(): distribution_of(one) for one in last.values() if one.is_sweep_override()}
    fixed = [str(override.input_line) for override in last.values() if not override.is_sweep_override()]
    return space, fixed


class Search(Sweeper):
    """Hydra's sweeper of a search.

    Args:
        sampler: an `optuna.samplers.BaseSampler`, seeded.
        direction: of the value that a job returns.
        n_trials: how many jobs.
        params: keys with what they are drawn from, as on the command line, which replaces them.
        results: file for the best trial and all others.
    """

    def __init__(
        self,
        sampler: Any,
        direction: Literal["minimize", "maximize"],
        n_trials: int,
        params: Mapping[str, Any],
        results: str,
    ) -> None:
        if direction not in ("minimize", "maximize"):
            raise refused("hydra.sweeper.direction", direction, "choose minimize or maximize")
        if not isinstance(n_trials, int) or n_trials < 1:
            raise refused("hydra.sweeper.n_trials", n_trials, "must be a whole number, at least 1")
        self.study = create_study(sampler=sampler, direction=direction)
        self.n_trials, self.params, self.results = n_trials, params, Path(results)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: Any) -> None:
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.metric = str(config.get("optimized_metric"))
        self.check_metric(self.metric)

    def check_metric(self, metric: str) -> None:
        """Refuse, before the first job, what no job measures; of which languages there are metrics, each job checks."""
        there = [f"val/{name}" for name in RECONSTRUCTION]
        if metric not in there and metric.rpartition("/")[0] not in there:
            raise refused("optimized_metric", metric, f"no such metric; there are {', '.join(there)}, and by language")

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs, tell Optuna their values, and write the results."""
        typed = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        space, fixed = space_of(self.parser.parse_overrides(typed))
        if not space:
            raise refused("hydra.sweeper.params", {}, "nothing to search; add a key, as 'sae.lr=interval(1e-4,1e-2)'")
        trials: list[dict[str, Any]] = []
        cells: list[list[str]] = []
        for number in range(self.n_trials):
            trial = self.study.ask(space)
            (job,) = self.jobs.launch([[*fixed, *(f"{key}={value}" for key, value in trial.params.items())]], number)
            value = job.return_value
            if isinstance(value, float) and math.isfinite(value):
                self.study.tell(trial, value)
            else:
                value = None
                self.study.tell(trial, state=TrialState.FAIL)
            log.info("trial %d of %d: %s", number + 1, self.n_trials, "failed" if value is None else f"{value:.6g}")
            trials.append({"params": trial.params, "value": value})
            folders = [Path(job.hydra_cfg.hydra.runtime.output_dir)] if job.hydra_cfg else []  # not of a lost SLURM job
            cells.append([str(cell.folder) for cell in cells_of_jobs(folders)])
        found: dict[str, Any] = {"name": "optuna", "metric": self.metric}
        if any(trial["value"] is not None for trial in trials):
            best = self.study.best_trial
            found |= {"best_params": best.params, "best_value": best.value, "best_cells": cells[best.number]}
        write_text(self.results, OmegaConf.to_yaml({**found, "trials": trials}))


def show_best(results: Path) -> bool:
    """Show the best trial of a search; False if none has a value."""
    found = OmegaConf.load(results)
    if "best_params" not in found:
        return False
    params = " ".join(f"{key}={value}" for key, value in found.best_params.items())
    log.info("best: %s = %.6g with %s", found.metric, found.best_value, params)
    for cell in found.best_cells:
        log.info("      %s", cell)
    log.info("all trials are in %s", results)
    return True
