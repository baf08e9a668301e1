"""What a job leaves: the cells of its members, and their runs in the loggers."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import OmegaConf

from bisae.cells.cell import Cell, code_version
from bisae.lm.model import Checkpoint
from bisae.runtime.atomic import write_json
from bisae.runtime.ranks import JOB
from bisae.sae import SparseAutoencoder
from bisae.training.cell_runs import axes, lm_axes, own_config, run_name
from bisae.training.data import ActivationData
from bisae.training.job import Job, Member
from bisae.training.loggers import CellLoggers
from bisae.training.module import SAETraining

log = logging.getLogger("bisae.training.fit")


@dataclass(frozen=True)
class JobResults:
    """Writes the cells of `job` and logs their runs.

    `config`: the resolved config (YAML), of which each cell keeps its own part, a value a key; `keep_save`: whether the
    last save outlives the job. Each process writes the cells of the members that it trains, and rank 0 has all runs.
    """

    job: Job
    checkpoint: Checkpoint
    config: str
    loggers: CellLoggers
    keep_save: bool

    def open_runs(self) -> None:
        """Start, or go on in, the run of each member; a trial has none."""
        if self.job.trial:
            return
        lm, alone = lm_axes(self.checkpoint), len(self.job.members) == 1 and JOB not in os.environ
        for member in self.job.members:
            cell, settings = member.cell, member.settings
            found = axes(cell, settings, lm, self.job.key)
            config = own_config(self.config, cell, settings)
            group = found["sweep"] or self.job.key
            self.loggers.open(cell.run_id, run_name(cell, settings), group, {**found, "config": config}, alone)
        self._note_runs()
        for place in self.loggers.places:
            log.info("metrics are logged by %s", place)
        for wandb in self.loggers.wandb:
            if wandb.mode == "offline":
                log.info("W&B offline: runs are in %s/wandb (logger=wandb_online or none changes that)", wandb.folder)
            if wandb.mode != "disabled" and (overridden := wandb.overridden()):
                log.info("W&B: %s", overridden)

    @property
    def _runs_file(self) -> Path:
        return self.job.folder / "wandb_runs.json"

    def _runs(self) -> dict[str, list[str]]:
        """The ids of the W&B runs that each member has had since its training began, by `Cell.run_id`."""
        found: dict[str, list[str]] = json.loads(self._runs_file.read_text()) if self._runs_file.exists() else {}
        return found

    def _note_runs(self) -> None:
        """Keep the ids beside the save: a killed job may go on in another run, by hand or under a W&B agent."""
        if not self.job.going_on:
            self._runs_file.unlink(missing_ok=True)
        if now := self.loggers.ids:
            before = self._runs()
            self._runs_file.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._runs_file, {run: list(dict.fromkeys([*before.get(run, ()), now[run]])) for run in now})

    def write(self, module: SAETraining, data: ActivationData) -> None:
        """Write the cells of this process's members, but of those that failed; end all runs. A trial has none."""
        if self.job.trial:
            limits = ", ".join(f"trainer.{name}={value}" for name, value in self.job.trial.items())
            scored = [metrics["fvu"] for metrics in module.validated.values()]
            fvu = f", val/fvu {sum(scored) / len(scored):.4g}" if scored else ""
            steps = module.trainer.global_step
            log.info("trial (%s): step %d%s; no cell, no save and no run is written", limits, steps, fvu)
            return
        if module.rates:
            rate = f"{median(module.rates):,.0f}"
            log.info("SAEs trained: %d, at %s tokens/s", len(self.job.members), rate)
        if module.trainer.global_step < data.steps:
            read, asked = data.tokens_read, data.steps * data.tokens_per_step
            log.info("stopped early by a callback, after %s of %s tokens", f"{read:,}", f"{asked:,}")
        written = {}
        for index, (member, sae) in enumerate(zip(module.members, module.saes, strict=True)):
            if index not in module.failed:
                metrics = {f"val/{name}": value for name, value in module.validated[index].items()}
                self._write_cell(member.cell, member, sae, metrics, self._provenance(member, sae, module))
                written[member.cell.run_id] = metrics
        everywhere = {run: metrics for one in module.log_run.meet(written) for run, metrics in one.items()}
        for cell in (member.cell for member in self.job.members):
            if cell.run_id in everywhere:
                self.loggers.log_cell(cell.run_id, cell.folder)
            self.loggers.finish(cell.run_id, everywhere.get(cell.run_id, {}), failed=cell.run_id not in everywhere)

    def write_snapshots(self, module: SAETraining, tokens: int, measured: Mapping[int, Mapping[str, float]]) -> None:
        """Write the cells of the members in `measured` as they are after `tokens` tokens."""
        for index, values in measured.items():
            member, sae = module.members[index], module.saes[index]
            metrics = {f"val/{name}": value for name, value in values.items()}
            about = self._provenance(member, sae, module) | {"sae_tokens": tokens, "snapshot_of": member.cell.name}
            # Not `wandb_run`: `runs=` finds the cell of a run, and analyses of that cell go on in it.
            about["snapshot_of_runs"] = [*about.pop("wandb_runs_before", ()), about.pop("wandb_run")]
            self._write_cell(member.snapshots[tokens], member, sae, metrics, about)

    def _write_cell(
        self,
        cell: Cell,
        member: Member,
        sae: SparseAutoencoder,
        metrics: Mapping[str, float],
        provenance: Mapping[str, Any],
    ) -> None:
        if cell.finished:  # a killed job may have written some of its cells
            return
        config = OmegaConf.to_yaml(own_config(self.config, cell, member.settings))
        try:
            cell.write(sae, config, metrics, provenance)
        except OSError:
            if not cell.finished:  # else a job with other members was a moment faster
                raise

    def _provenance(self, member: Member, sae: SparseAutoencoder, module: SAETraining) -> dict[str, Any]:
        data, update = module.data, "by blocks of latents" if module.take else "whole gradients"
        asked, run = data.streams.asked, member.cell.run_id
        given = self.loggers.ids.get(run, run)
        before = [other for other in self._runs().get(run, ()) if other != given]
        return {
            "code": code_version(),
            "activations": data.streams.training.name,
            "lm_tokens_seen": self.checkpoint.tokens_seen,
            "tokens": {"training": asked.order.tokens, "validation": asked.held_out_tokens},  # distinct
            "sae_tokens": data.tokens_read,
            "seeds": {"sae": sae.seed, "data": asked.order.seed},
            "wandb_run": given,
            "computed": {"codes": sae.computed, "update": update},  # no more than last bits depend on it
            **({"wandb_runs_before": before} if before else {}),
            **({"start": str(member.start.folder)} if member.start else {}),
        }

    def close(self) -> None:
        """Close the runs that are still open: the job ended before these cells did."""
        self.loggers.close()

    def clean_up(self) -> None:
        """After the end of a job its save has served, unless it is kept."""
        if not self.keep_save:
            self.job.delete_save()
            self._runs_file.unlink(missing_ok=True)
