"""One job from its activations to its finished cells."""

import logging
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bisae.activations.feed import ActivationBatch, Feed, HeldOutBatches
from bisae.activations.job_activations import JobActivations
from bisae.cells.cell import code_version
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import RankLost, TrainingFailed
from bisae.sae import SparseAutoencoder
from bisae.training.job import Job, Member
from bisae.training.module import SAETraining
from bisae.training.saves import check_save
from bisae.training.steps import StepSampler
from bisae.training.trainer import TrainingSchedule, lost_ranks
from bisae.training.wandb_runs import WandbRuns, axes

log = logging.getLogger("bisae.training.fit")


class TrainingBatches(Dataset[ActivationBatch]):
    """Batches, or this rank's part of them, by (epoch, step)."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitems__(self, steps: list[tuple[int, int]]) -> ActivationBatch:
        (epoch, step), *_ = steps
        return self.feed.batch(epoch, step)


def whole(batch: Any) -> Any:
    """Collation that leaves a batch as it is."""
    return batch


def fit(
    job: Job,
    saes: Sequence[SparseAutoencoder],
    checkpoint: Checkpoint,
    languages: tuple[str, ...],
    streams: JobActivations,
    schedule: TrainingSchedule,
    trainer: Trainer,
    optimizer: Callable[..., torch.optim.Optimizer],
    wandb_runs: WandbRuns,
    config: str,
) -> None:
    """Train the members of `job`, going on from its save if there is one, and write their cells.

    TrainingFailed, after the other members' cells are written, if a member's numbers were no longer finite; at once
    if another rank is gone.
    """
    asked, order, part = streams.asked, streams.asked.order, streams.asked.part
    feed = Feed(streams.training, job.layers, order, schedule.epochs, part)

    def log_cell(member: Member, metrics: Any, tokens: int) -> None:
        wandb_runs.log(member.cell.run_id, metrics, tokens)

    def shards(rows: Tensor) -> list[int]:
        return feed.shards_of(rows.numpy())

    module = SAETraining(
        job.members,
        saes,
        languages,
        optimizer,
        schedule.warmup,
        lambda: feed.batch(0, 0),
        shards,
        order.batch,
        schedule.log_every,
        log_cell,
    )
    batches = StepSampler(module, order.steps_per_epoch, lambda epoch, step: [(epoch, step)])
    size = max(order.batch // part.world, 4096)
    held_out = HeldOutBatches(streams.validation, job.layers, asked.held_out_tokens, size, order.window_rows, part)
    validating = DataLoader(held_out, batch_size=None, collate_fn=whole)
    finished = False
    try:
        if part.rank == 0:
            if job.save.exists():
                check_save(job.save)
            _open_runs(wandb_runs, job, checkpoint)
        trainer.fit(
            module,
            DataLoader(TrainingBatches(feed), batch_sampler=batches, collate_fn=whole),
            validating,
            ckpt_path=job.save if job.save.exists() else None,
            weights_only=True,
        )
        if trainer.global_step != schedule.epochs * order.steps_per_epoch:
            raise RuntimeError(f"training ended after {trainer.global_step} steps; no cell is written")
        finished = True
        if part.rank > 0:
            return
        if module.rates:
            log.info("SAEs trained: %d, at %s tokens/s", len(job.members), f"{median(module.rates):,.0f}")
        for index, (member, sae) in enumerate(zip(job.members, saes, strict=True)):
            if index in module.failed:
                wandb_runs.finish(member.cell.run_id, {}, failed=True)
                continue
            metrics = {f"val/{name}": value for name, value in module.validated[index].items()}
            if not member.cell.finished:  # a killed job may have written some of its cells
                provenance = {
                    "code": code_version(),
                    "activations": streams.training.name,
                    "lm_tokens_seen": checkpoint.tokens_seen,
                    "tokens": {"training": order.tokens, "validation": asked.held_out_tokens},  # distinct
                    "sae_tokens": schedule.epochs * order.steps_per_epoch * order.batch,
                    "seeds": {"sae": sae.seed, "data": order.seed},
                    "wandb_run": member.cell.run_id,
                }
                try:
                    member.cell.write(sae, config, metrics, provenance)
                except OSError:
                    if not member.cell.finished:  # else a job with other members was a moment faster
                        raise
            wandb_runs.log_cell(member.cell.run_id, member.cell.folder)
            wandb_runs.finish(member.cell.run_id, metrics)
    except SystemExit as stop:
        if stop.code == 1:
            raise KeyboardInterrupt from None  # what Lightning makes an exit of
        raise
    except RuntimeError as error:
        mine = isinstance(error, TrainingFailed)
        if part.world > 1 and not mine and (lost := lost_ranks(trainer, error)):
            raise RankLost(f"{lost}; all stopped, and the same command goes on from the last save") from error
        raise
    finally:
        wandb_runs.close()
        streams.close(finished)
    if not schedule.keep_save:
        job.save.unlink(missing_ok=True)
    if module.failed:
        raise TrainingFailed("\n".join(["these members failed, the others are finished:", *module.failed.values()]))


def _open_runs(wandb_runs: WandbRuns, job: Job, checkpoint: Checkpoint) -> None:
    for member in job.members:
        found = axes(checkpoint, member, job.key)
        wandb_runs.open(member.cell.run_id, member.cell.name, found["sweep"] or job.key, found)
    if wandb_runs.mode == "offline":
        log.info("W&B offline: runs are in %s/wandb (logger=wandb_online or none changes that)", wandb_runs.folder)
