"""Lightning's Trainer for a job: what of it the config may set, and on which devices it runs."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from bisae.runtime.errors import ConfigError
from bisae.runtime.ranks import forget_ranks, rank, torchrun_size
from bisae.training.blocked_adam import BlockedAdam
from bisae.training.job import Job
from bisae.training.module import Reports
from bisae.training.saves import Saves

# Config group `trainer`: its keys and, where not every value keeps results what their identity says, the values.
TRAINER: dict[str, tuple[str, ...]] = {
    "accelerator": ("auto", "cpu", "gpu", "cuda"),
    "devices": (),
    "precision": ("32-true", "bf16-mixed"),
    "enable_progress_bar": (),
}


@dataclass(frozen=True)
class TrainingSchedule:
    """How long and how often: `epochs`; `warmup`, `save_every` and `log_every` in steps.

    `keep_save`: whether the last save, with its optimizer state, outlives the job.
    """

    epochs: int
    warmup: int
    save_every: int
    log_every: int
    keep_save: bool


def make_trainer(trainer: "partial[Trainer]", job: Job, schedule: TrainingSchedule, batch: int) -> Trainer:
    """Complete config group `trainer`; ConfigError where it could change results unseen, or Lightning refuses it.

    `batch`: tokens a step of all devices together, which they share equally.
    """
    for key, value in trainer.keywords.items():
        if key not in TRAINER:
            raise ConfigError(f"trainer.{key}", value, f"could change results; only {', '.join(TRAINER)} may be set")
        if TRAINER[key] and value not in TRAINER[key]:
            raise ConfigError(f"trainer.{key}", value, f"choose one of {', '.join(TRAINER[key])}")
    accelerator = trainer.keywords["accelerator"]
    if accelerator == "auto":  # not Lightning's: it would take Apple's GPU, which has no float64 for the metrics
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    devices, nodes = torchrun_size() or (trainer.keywords["devices"], 1)
    count = len(devices) if isinstance(devices, list) else devices
    if count == -1:
        count = devices = max(1, torch.cuda.device_count()) if accelerator in ("gpu", "cuda") else 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError("trainer.devices", devices, "give a number, a list of GPUs, or -1 for all GPUs")
    world = count * nodes
    if batch % world:
        raise ConfigError("data.batch", batch, f"must be a multiple of the number of devices, {world}")
    if world > 1 and not torchrun_size() and not HydraConfig.initialized():
        raise ConfigError("trainer.devices", devices, "several devices need the command line, which every process runs")
    # Buffers (clocks of latents) move alike on all ranks; a broadcast a step would only cost time.
    strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if world > 1 else "auto"
    own = not torchrun_size()
    if own and rank() == 0:
        forget_ranks()
    try:
        made = trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            # Not what Lightning finds: under SLURM it would wait for srun's tasks, and load any hpc_ckpt_*.ckpt.
            plugins=[LightningEnvironment()] if own else [],
            default_root_dir=job.folder,
            max_epochs=schedule.epochs,
            callbacks=[Reports(), Saves(job.save, schedule.save_every)],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError("trainer", dict(trainer.keywords), str(error)) from error
    return made


def check_optimizer(optimizer: Callable[..., torch.optim.Optimizer], devices: int) -> None:
    """ConfigError where the optimizer refuses its settings, or so many devices."""
    try:
        made = optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}])
    except (ValueError, TypeError, LookupError) as error:  # LookupError: betas=[]
        raise ConfigError("optimizer.partial", "...", str(error)) from error
    if devices > 1 and isinstance(made, BlockedAdam):
        raise ConfigError("optimizer", "blocked", f"is for one device, not {devices}; optimizer=adam is for several")


def lost_ranks(trainer: Trainer, error: RuntimeError) -> str | None:
    """Which rank is gone, if that is what `error`, raised by a message between ranks, comes from."""
    deadline = time.monotonic() + 2  # a connection may end a moment before its process
    for number, process in enumerate(getattr(trainer.strategy.launcher, "procs", []), start=1):
        with suppress(subprocess.TimeoutExpired):
            if status := process.wait(max(0.0, deadline - time.monotonic())):
                return f"rank {number} ended with status {status}"
    if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
        return f"rank {trainer.global_rank} lost another rank"
    return None
