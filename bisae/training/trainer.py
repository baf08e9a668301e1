"""Lightning's Trainer for a job, and on which devices it runs."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.plugins import CheckpointIO, MixedPrecision
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from bisae.activations.order import ReadingOrder
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import forget_ranks, rank, torchrun_size
from bisae.training.flags import PRECISIONS, set_flags, trial_flags
from bisae.training.progress_bar import progress_bar


class Machine(NamedTuple):
    """On what a job runs: `devices` of a machine as Lightning takes them, `world` devices in all."""

    accelerator: str
    devices: Any
    nodes: int
    world: int


class Apart(DDPStrategy):
    """Processes as of DDP, whose modules have nothing in common: no gradient travels, and each saves its own."""

    def configure_ddp(self) -> None:
        """The module stays as it is."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)


def make_trainer(
    trainer: "partial[Trainer]",
    callbacks: Sequence[Callback],
    epochs: int,
    order: ReadingOrder,
    folder: Path,
    checkpoints: CheckpointIO | None = None,
    apart: bool = False,
) -> Trainer:
    """Build the Trainer of config group `trainer`, with bisae's own choices for the rest.

    Args:
        trainer: the class with the arguments of the config.
        callbacks: in the order in which they are called.
        epochs: passes over the training data.
        order: of the training tokens; all devices together read its batches, and share them equally.
        folder: where Lightning may write.
        checkpoints: how a save is read; None: as Lightning does.
        apart: whether each device has members of its own, and reads whole batches.

    Raises:
        Refused: an argument that `bisae.training.flags` or Lightning refuses, or with which the end of training would
            not be validated; `batch`, if the devices cannot share it equally.
    """
    chosen = set_flags(trainer.keywords)
    check_validation(chosen, epochs, order.steps_per_epoch)
    clip = chosen.get("gradient_clip_val", 1.0)
    if not isinstance(clip, int | float) or clip <= 0:
        raise Refused("gradient_clip_val", clip, "must be a number above 0")
    accelerator, devices, nodes, world = machine(trainer.keywords)
    if not apart and order.batch % world:
        raise Refused("batch", order.batch, f"must be a multiple of the number of devices, {world}")
    if world > 1 and not torchrun_size() and not HydraConfig.initialized():
        raise Refused("devices", devices, "several devices need the command line, which every process runs")
    # Buffers (clocks of latents) move alike on all ranks; a broadcast a step would only cost time.
    shared = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True) if world > 1 else "auto"
    own = not torchrun_size()
    if own and rank() == 0:
        forget_ranks()
    plugins, precision = _precision(PRECISIONS[chosen.get("precision")], accelerator)
    plugins += [checkpoints] if checkpoints else []
    if own:
        # Not what Lightning finds: under SLURM it would wait for srun's tasks, and load any hpc_ckpt_*.ckpt.
        plugins.append(LightningEnvironment())
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if chosen.get("enable_progress_bar", True) and not bar:
        callbacks = [progress_bar(), *callbacks]
    try:
        return trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=Apart() if apart else shared,
            precision=precision,
            plugins=plugins,
            default_root_dir=folder,
            max_epochs=epochs,
            max_time=chosen.get("max_time") if trial_flags(chosen) else None,  # else `Saves` stops the job
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=chosen.get("enable_model_summary", False),
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise Refused("trainer", dict(trainer.keywords), str(error)) from error


def check_validation(trainer: Mapping[str, Any], epochs: int, steps: int) -> None:
    """Refuse settings with which the end of training is not validated: a cell's metrics are those of its end.

    Args:
        trainer: arguments of the Trainer.
        epochs: of the training.
        steps: of an epoch.
    """
    if trial_flags(trainer):
        return
    interval, epoch = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if epoch is None or epoch < 1 or epochs % epoch:
        raise Refused("check_val_every_n_epoch", epoch, f"must divide the epochs, {epochs}, so that the last is scored")
    every = int(steps * interval) if isinstance(interval, float) else steps if interval is None else interval
    if not isinstance(every, int) or every < 1 or steps % every:
        remedy = f"must divide the steps of an epoch, {steps}, so that the end is scored; or be such a share, like 0.5"
        raise Refused("val_check_interval", interval, remedy)


def _precision(precision: str, accelerator: str) -> tuple[list[Any], str | None]:
    """(plugins, `precision`) as Lightning takes them."""
    if precision != "16-mixed":
        return [], precision
    # Lightning's scale of the loss is one for all members: a step skipped for one is skipped for all. None is needed:
    # only the encoder's product is in float16, and the gradients written by hand are float32.
    device = "cpu" if accelerator == "cpu" else "cuda"
    return [MixedPrecision("16-mixed", device, torch.amp.GradScaler(device, enabled=False))], None


def machine(trainer: Mapping[str, Any]) -> Machine:
    """What the arguments of the Trainer mean here. Refused: `accelerator`, `devices`."""
    accelerator, devices = trainer.get("accelerator") or "auto", trainer.get("devices", 1)
    if accelerator == "auto":  # not Lightning's: it would take Apple's GPU, which has no float64 for the metrics
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    if accelerator != "cpu" and not torch.cuda.is_available():  # Lightning's `gpu` may be Apple's too
        raise Refused("accelerator", accelerator, "there is no CUDA GPU here; choose auto or cpu")
    devices, nodes = torchrun_size() or (devices, 1)
    count = len(devices) if isinstance(devices, list) else devices
    if count in (-1, "auto"):
        count = devices = max(1, torch.cuda.device_count()) if accelerator in ("gpu", "cuda") else 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise Refused("devices", devices, "give a number, a list of GPUs, or -1 (auto) for all GPUs")
    return Machine(accelerator, devices, nodes, count * nodes)


def check_optimizer(
    optimizer: Callable[..., torch.optim.Optimizer], devices: int, clip: int | float | None = None
) -> None:
    """Try an optimizer before any work.

    Args:
        optimizer: makes one of parameter groups.
        devices: how many share each batch.
        clip: the Trainer's `gradient_clip_val`.

    Raises:
        Refused: `partial`, its settings; for an optimizer that forms gradients itself (it has a `take`, as BlockedAdam
            does) `optimizer`, if several devices share batches, since they average gradients that exist as a whole, and
            `gradient_clip_val`, since only these can be clipped.
    """
    try:
        made = optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}])
    except (ValueError, TypeError, LookupError) as error:  # LookupError: betas=[]
        raise Refused("partial", "...", str(error)) from error
    if hasattr(made, "take"):
        name = type(made).__name__
        if devices > 1:
            remedy = "choose optimizer=adam, or spread=members with as many SAEs"
            raise Refused("optimizer", name, f"forms no gradient that {devices} devices could average; {remedy}")
        if clip:
            remedy = f"optimizer={name} never forms a whole gradient that could be clipped; optimizer=adam does"
            raise Refused("gradient_clip_val", clip, remedy)


def check_products(asked: str) -> None:
    """Refuse (`matmul_precision`) to train where float32 products would not be as `asked`.

    A library or callback can allow TF32, and so can the environment: a cell would not be what its name says.
    """
    backends: Any = torch.backends
    matmul = backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # since torch 2.9, where reading the older one may raise
        found = matmul.fp32_precision if matmul.fp32_precision != "none" else backends.fp32_precision
        tf32 = found == "tf32"
    else:
        tf32 = matmul.allow_tf32
    forced = os.environ.get("NVIDIA_TF32_OVERRIDE", "0")
    if forced != "0" and torch.cuda.is_available():
        remedy = f"NVIDIA_TF32_OVERRIDE={forced} is in the environment, whatever is asked: unset it"
        raise Refused("matmul_precision", asked, remedy)
    if tf32 != (asked != "highest"):
        what = "has allowed TF32 since; ask for it by matmul_precision=high" if tf32 else "has forbidden TF32 since"
        raise Refused("matmul_precision", asked, f"something else (a callback, a library) {what}, or leave that out")


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
