"""Every argument of Lightning's Trainer: whether a config may set it, and what that means for a cell.

A cell's name says what made it. So an argument cannot change a cell, or is part of its identity, or belongs to a trial,
which writes no cell, or is set by another key. Without Lightning: a finished job only asks for its identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bisae.runtime.errors import Refused

Kind = Literal[
    "harmless",  # passed on; results are the same, or differ as they do between devices
    "identity",  # passed on, and part of the cell's identity
    "watched",  # the same, but only beside callbacks that change results: it says when they are called
    "trial",  # passed on; no cell, no save and no run is written
    "ours",  # refused: another key sets it, or nothing may
]


@dataclass(frozen=True)
class Flag:
    """What an argument is. `default`: Lightning's; `same`: values that mean the same; `taken`: the only others."""

    kind: Kind
    default: Any = None
    same: tuple[Any, ...] = ()
    taken: tuple[Any, ...] = ()
    remedy: str = ""

    def is_set(self, value: object) -> bool:
        return not any(type(value) is type(one) and value == one for one in (self.default, *self.same))


PRECISIONS: dict[Any, str] = {
    **{None: "32-true", 32: "32-true", "32": "32-true", "32-true": "32-true"},
    **{"bf16": "bf16-mixed", "bf16-mixed": "bf16-mixed"},
    **{16: "16-mixed", "16": "16-mixed", "16-mixed": "16-mixed"},
}
FLAGS = {
    # Not "auto" of Lightning, which would take Apple's GPU: the metrics need float64.
    "accelerator": Flag("harmless", "auto", taken=("cpu", "gpu", "cuda")),
    "strategy": Flag("harmless", "auto", taken=("ddp",)),  # several devices are DDP in any case
    "devices": Flag("harmless", "auto"),
    "num_nodes": Flag("ours", 1, remedy="start the ranks of several machines with torchrun"),
    "precision": Flag("identity", None, taken=tuple(PRECISIONS)),
    "logger": Flag("ours", None, (False,), remedy="the group `logger` says where metrics go"),
    "callbacks": Flag("ours", None, remedy="give them to the group: +callbacks.mine._target_=..."),
    "fast_dev_run": Flag("trial", False, (0,)),
    "max_epochs": Flag("ours", None, remedy="data.epochs is the number of epochs"),
    "min_epochs": Flag("watched", None),
    "max_steps": Flag("trial", -1),
    "min_steps": Flag("watched", None),
    "max_time": Flag("harmless", None),  # see bisae.training.saves
    "limit_train_batches": Flag("trial", None, (1.0,)),
    "limit_val_batches": Flag("trial", None, (1.0,)),
    "limit_test_batches": Flag("ours", None, remedy="training does not test; data.validation_tokens are held out"),
    "limit_predict_batches": Flag("ours", None, remedy="training does not predict"),
    "overfit_batches": Flag("trial", 0.0, (0,)),
    "val_check_interval": Flag("watched", None, (1.0,)),
    "check_val_every_n_epoch": Flag("watched", 1),
    "num_sanity_val_steps": Flag("ours", None, (0,), remedy="it would count as a validation; debug=fdr tries one"),
    "log_every_n_steps": Flag("ours", None, remedy="log_every is the number of steps"),
    "enable_checkpointing": Flag("ours", None, (False,), remedy="save_every and keep_save say what is saved"),
    "enable_progress_bar": Flag("harmless", None),
    "enable_model_summary": Flag("harmless", None),
    "accumulate_grad_batches": Flag(
        "ours", 1, remedy="data.batch is the tokens of a step; warm-up and dead latents are counted by it"
    ),
    "gradient_clip_val": Flag("identity", None, (0, 0.0)),
    "gradient_clip_algorithm": Flag("identity", None, ("norm",), ("value",)),
    # On a CPU the bits are the same; on a GPU a user who asks for it must not be given a cell made without.
    "deterministic": Flag("identity", None, (False,), (True, "warn")),
    "benchmark": Flag("harmless", None),  # of convolutions, which neither an SAE nor its training has
    "inference_mode": Flag("harmless", True),  # the validation's numbers are the same
    "use_distributed_sampler": Flag("ours", True, (False,), remedy="every rank reads its part of each batch already"),
    "profiler": Flag("harmless", None),
    "detect_anomaly": Flag("harmless", False),
    "barebones": Flag("ours", False, remedy="a job needs its saves; trainer.profiler=simple shows the time"),
    "plugins": Flag("ours", None, remedy="devices and precision have keys: trainer.devices, trainer.precision"),
    "sync_batchnorm": Flag("ours", False, remedy="SAEs have no batch norm"),
    "reload_dataloaders_every_n_epochs": Flag("ours", 0, remedy="a batch follows from its epoch and step"),
    "default_root_dir": Flag("ours", None, remedy="runs is the folder of the results"),
    "enable_autolog_hparams": Flag("harmless", True),  # a run's config is bisae's
    "model_registry": Flag("ours", None, remedy="python -m bisae convert push=... uploads cells"),
}
LIGHTNINGS = ("lightning.Trainer", "lightning.pytorch.Trainer", "lightning.pytorch.trainer.trainer.Trainer")


def set_flags(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a config sets to something else than Lightning's default.

    Args:
        trainer: config group `trainer`, or arguments of the Trainer.

    Raises:
        Refused: an argument, by its name, that another key sets, or whose value could change results unseen.
    """
    found = {}
    for name, value in trainer.items():
        flag = FLAGS.get(name, Flag("identity"))  # an argument of a Trainer of the user's own
        if name.startswith("_") or not flag.is_set(value):
            continue
        if flag.kind == "ours":
            raise Refused(name, value, f"cannot be set here: {flag.remedy}")
        if flag.taken and value not in flag.taken:
            choices = [one for one in (flag.default, *flag.taken) if isinstance(one, str)]
            raise Refused(name, value, f"choose one of {', '.join(choices)}")
        found[name] = value
    return found


def trainer_identity(trainer: Mapping[str, Any], watched: bool) -> dict[str, Any]:
    """What of the Trainer is in a cell's identity: always `precision`, and `trainer` where something else is set.

    Args:
        trainer: config group `trainer`.
        watched: whether there are callbacks that change results.

    Raises:
        Refused: as `set_flags` does.
    """
    given = set_flags(trainer)
    kinds = ("identity", "watched") if watched else ("identity",)
    identity = {name: value for name, value in given.items() if name not in FLAGS or FLAGS[name].kind in kinds}
    precision = PRECISIONS[identity.pop("precision", None)]
    if "gradient_clip_val" not in identity:
        identity.pop("gradient_clip_algorithm", None)
    elif isinstance(clip := identity["gradient_clip_val"], int):
        identity["gradient_clip_val"] = float(clip)  # 1 is 1.0
    if trainer.get("_target_", LIGHTNINGS[0]) not in LIGHTNINGS:
        identity["_target_"] = trainer["_target_"]
    return {"precision": precision} | ({"trainer": identity} if identity else {})


def trial_flags(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that make a job a trial."""
    return {name: value for name, value in set_flags(trainer).items() if name in FLAGS and FLAGS[name].kind == "trial"}
