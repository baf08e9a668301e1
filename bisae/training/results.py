"""What a job leaves: the cells of its members, and their W&B runs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from bisae.cells.cell import Cell, code_version
from bisae.lm.model import Checkpoint
from bisae.sae import SparseAutoencoder
from bisae.training.data import ActivationData
from bisae.training.job import Job, Member
from bisae.training.module import SAETraining
from bisae.training.wandb_runs import WandbRuns, axes

log = logging.getLogger("bisae.training.fit")


@dataclass(frozen=True)
class JobResults:
    """Writes the cells of `job` and logs their W&B runs.

    `config`: the resolved config (YAML), kept in each cell; `keep_save`: whether the last save outlives the job.
    """

    job: Job
    checkpoint: Checkpoint
    config: str
    wandb_runs: WandbRuns
    keep_save: bool

    def open_runs(self) -> None:
        """Start, or go on in, the W&B run of each member; a trial has none."""
        if self.job.trial:
            return
        for member in self.job.members:
            found = axes(self.checkpoint, member, self.job.key)
            self.wandb_runs.open(member.cell.run_id, member.cell.name, found["sweep"] or self.job.key, found)
        if self.wandb_runs.mode == "offline":
            folder = self.wandb_runs.folder
            log.info("W&B offline: runs are in %s/wandb (logger=wandb_online or none changes that)", folder)

    def write(self, module: SAETraining, data: ActivationData) -> None:
        """Write the cells of a trained job, but those of members that failed; end their W&B runs. A trial has none."""
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
        for index, (member, sae) in enumerate(zip(self.job.members, module.saes, strict=True)):
            if index in module.failed:
                self.wandb_runs.finish(member.cell.run_id, {}, failed=True)
                continue
            metrics = {f"val/{name}": value for name, value in module.validated[index].items()}
            self._write_cell(member.cell, sae, metrics, self._provenance(member, sae, data))
            self.wandb_runs.log_cell(member.cell.run_id, member.cell.folder)
            self.wandb_runs.finish(member.cell.run_id, metrics)

    def write_snapshots(self, module: SAETraining, tokens: int, measured: Mapping[int, Mapping[str, float]]) -> None:
        """Write the cells of the members in `measured` as they are after `tokens` tokens."""
        for index, values in measured.items():
            member, sae = self.job.members[index], module.saes[index]
            metrics = {f"val/{name}": value for name, value in values.items()}
            about = self._provenance(member, sae, module.data) | {"sae_tokens": tokens, "snapshot_of": member.cell.name}
            del about["wandb_run"]  # which stands for the member's own cell
            self._write_cell(member.snapshots[tokens], sae, metrics, about)

    def _write_cell(
        self, cell: Cell, sae: SparseAutoencoder, metrics: Mapping[str, float], provenance: Mapping[str, Any]
    ) -> None:
        if cell.finished:  # a killed job may have written some of its cells
            return
        try:
            cell.write(sae, self.config, metrics, provenance)
        except OSError:
            if not cell.finished:  # else a job with other members was a moment faster
                raise

    def _provenance(self, member: Member, sae: SparseAutoencoder, data: ActivationData) -> dict[str, Any]:
        asked = data.streams.asked
        return {
            "code": code_version(),
            "activations": data.streams.training.name,
            "lm_tokens_seen": self.checkpoint.tokens_seen,
            "tokens": {"training": asked.order.tokens, "validation": asked.held_out_tokens},  # distinct
            "sae_tokens": data.tokens_read,
            "seeds": {"sae": sae.seed, "data": asked.order.seed},
            "wandb_run": member.cell.run_id,
            **({"start": str(member.start.folder)} if member.start else {}),
        }

    def close(self) -> None:
        """Close the W&B runs that are still open: the job ended before these cells did."""
        self.wandb_runs.close()

    def clean_up(self) -> None:
        """After the end of a job its save has served, unless it is kept."""
        if not self.keep_save:
            self.job.save.unlink(missing_ok=True)
