"""Callbacks of the config (group `callbacks`): which are part of a cell's identity, and which can be used at all."""

from collections.abc import Mapping
from typing import Any

from bisae.config.objects import target_of
from bisae.runtime.errors import ConfigError

# Lightning's own that can be used, and whether they change results.
LIGHTNINGS = {
    "EarlyStopping": True,
    "LambdaCallback": True,
    "ModelSummary": False,
    "ProgressBar": False,
    "RichModelSummary": False,
    "RichProgressBar": False,
    "TQDMProgressBar": False,
}
# Why others cannot.
SAVES, WEIGHTS = "save_every and keep_save say what is saved", "the cell must hold the weights that were scored"
LOGS = "it needs trainer.logger, while every SAE of a job has a run of its own, where its rate and tokens/s are logged"
REASONS = {
    "BatchSizeFinder": "data.batch is part of a cell's name",
    "DeviceStatsMonitor": LOGS,
    "EMAWeightAveraging": WEIGHTS,
    "GradientAccumulationScheduler": "data.batch is the tokens of a step",
    "LearningRateFinder": "sweep over sae.lr; python -m bisae rates finds the best",
    "LearningRateMonitor": LOGS,
    "ModelCheckpoint": SAVES,
    "OnExceptionCheckpoint": SAVES,
    "StochasticWeightAveraging": WEIGHTS,
    "ThroughputMonitor": LOGS,
    "Timer": "trainer.max_time stops, saves and goes on",
    "WeightAveraging": WEIGHTS,
}


def callbacks_identity(callbacks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of config group `callbacks` is in a cell's identity: those that do not say `changes_results = False`.

    Args:
        callbacks: nodes with `_target_` by name; None for one that is taken out.

    Raises:
        ConfigError: a callback of Lightning's that cannot be used.
    """
    return [node for name, node in callbacks.items() if node and _changes_results(f"callbacks.{name}", node)]


def check_alone(callbacks: Mapping[str, Any], members: int) -> None:
    """ConfigError for a callback that may tie the SAEs of a job to each other: a cell is what it would be alone.

    A class says `acts_per_member = True` if what it does to an SAE follows from that SAE alone.
    """
    for name, node in callbacks.items() if members > 1 else ():
        key = f"callbacks.{name}"
        if node and _changes_results(key, node) and not getattr(target_of(key, node), "acts_per_member", False):
            remedy = (
                f"looks at the whole job, so that its {members} SAEs would depend on each other: train one SAE a job, "
                "or say acts_per_member = True in a class that looks at each SAE alone"
            )
            raise ConfigError(f"{key}._target_", node["_target_"], remedy)


def _changes_results(key: str, node: Mapping[str, Any]) -> bool:
    kind = target_of(key, node)
    name, of_lightning = kind.__name__, kind.__module__.startswith(("lightning.", "pytorch_lightning."))
    if of_lightning and name not in LIGHTNINGS:
        reason = REASONS.get(name, f"of Lightning's own there are {', '.join(LIGHTNINGS)}")
        raise ConfigError(f"{key}._target_", node["_target_"], f"cannot be used: {reason}")
    return bool(LIGHTNINGS[name] if of_lightning else getattr(kind, "changes_results", True))
