"""Lightning's Trainer for a job: what of it the config may set, and on which devices it runs."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from bisae.runtime.errors import Refused
from bisae.runtime.ranks import forget_ranks, rank, torchrun_size

# Config group `trainer`: its keys and, where not every value keeps results what their identity says, the values.
TRAINER: dict[str, tuple[str, ...]] = {
    "accelerator": ("auto", "cpu", "gpu", "cuda"),
    "devices": (),
    "precision": ("32-true", "bf16-mixed"),
    "enable_progress_bar": (),
}


def make_trainer(
    trainer: "partial[Trainer]", callbacks: Sequence[Callback], epochs: int, batch: int, folder: Path
) -> Trainer:
    """Build the Trainer of config group `trainer`, with bisae's own choices for the rest.

    Args:
        trainer: the class with the arguments of the config.
        callbacks: in the order in which they are called.
        epochs: passes over the training data.
        batch: tokens a step of all devices together, which they share equally.
        folder: where Lightning may write.

    Raises:
        Refused: an argument that could change results without the cell's hash saying so, or that Lightning refuses;
            `batch`, if the devices cannot share it equally.
    """
    for key, value in trainer.keywords.items():
        if key not in TRAINER:
            raise Refused(key, value, f"could change results; only {', '.join(TRAINER)} may be set")
        if TRAINER[key] and value not in TRAINER[key]:
            raise Refused(key, value, f"choose one of {', '.join(TRAINER[key])}")
    chosen: dict[str, Any] = {"accelerator": "auto", "devices": 1} | trainer.keywords
    accelerator, devices, nodes, world = _machine(chosen["accelerator"], chosen["devices"])
    if batch % world:
        raise Refused("batch", batch, f"must be a multiple of the number of devices, {world}")
    if world > 1 and not torchrun_size() and not HydraConfig.initialized():
        raise Refused("devices", devices, "several devices need the command line, which every process runs")
    # Buffers (clocks of latents) move alike on all ranks; a broadcast a step would only cost time.
    strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if world > 1 else "auto"
    own = not torchrun_size()
    if own and rank() == 0:
        forget_ranks()
    try:
        return trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            # Not what Lightning finds: under SLURM it would wait for srun's tasks, and load any hpc_ckpt_*.ckpt.
            plugins=[LightningEnvironment()] if own else [],
            default_root_dir=folder,
            max_epochs=epochs,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise Refused("trainer", dict(trainer.keywords), str(error)) from error


def _machine(accelerator: str, devices: Any) -> tuple[str, Any, int, int]:
    """(accelerator, devices of a machine as Lightning takes them, machines, devices in all)."""
    if accelerator == "auto":  # not Lightning's: it would take Apple's GPU, which has no float64 for the metrics
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    devices, nodes = torchrun_size() or (devices, 1)
    count = len(devices) if isinstance(devices, list) else devices
    if count == -1:
        count = devices = max(1, torch.cuda.device_count()) if accelerator in ("gpu", "cuda") else 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise Refused("devices", devices, "give a number, a list of GPUs, or -1 for all GPUs")
    return accelerator, devices, nodes, count * nodes


def check_optimizer(optimizer: Callable[..., torch.optim.Optimizer], devices: int) -> None:
    """Try an optimizer before any work.

    Args:
        optimizer: makes one of parameter groups.
        devices: how many train together.

    Raises:
        Refused: `partial`, its settings; `optimizer`, if it forms gradients itself (it has a `take`, as BlockedAdam
            does) and there are several devices, since ranks average gradients that exist as a whole.
    """
    try:
        made = optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}])
    except (ValueError, TypeError, LookupError) as error:  # LookupError: betas=[]
        raise Refused("partial", "...", str(error)) from error
    if devices > 1 and hasattr(made, "take"):
        name = type(made).__name__
        raise Refused("optimizer", name, f"is for one device, not {devices}; optimizer=adam is for several")


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
