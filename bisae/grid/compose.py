"""The ladders that a command line of `bisae plan` or `bisae status` names."""

from collections.abc import Sequence
from typing import Any, TypeVar

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bisae.config.settings import Command, read_settings
from bisae.grid.ladders import Ladder, Settings, ladders_of
from bisae.grid.rates import read_rates
from bisae.runtime.errors import ConfigError

OWN = ("machine", "layers_at_once", "rates", "contexts", "write", "html")  # keys that train.py does not know


Planned = TypeVar("Planned", bound=Command)


def planned_settings(kind: type[Planned], cfg: Any) -> Planned:
    """Settings of a grid, whose `checkpoint` may be left open: each command of the grid gives it."""
    if OmegaConf.is_missing(cfg, "checkpoint"):
        cfg = OmegaConf.merge(cfg, {"checkpoint": "final"})
    elif OmegaConf.is_list(cfg.checkpoint):
        steps = list(cfg.checkpoint)
        model = HydraConfig.get().runtime.choices["model"]
        raise ConfigError("checkpoint", steps, f"is one step; the steps of a grid go to '+grid={{{model}: {steps}}}'")
    return read_settings(kind, cfg)


def composed_ladders(kind: type[Command]) -> list[Ladder]:
    """The ladders of `grid`, or of its `model` if one is typed; without a grid the one job of `model` and `checkpoint`.

    `kind`: the settings of the command.
    """
    hydra = HydraConfig.get()
    typed = [override for override in hydra.overrides.task if _key(override) != "model"]

    def settings_of(preset: str) -> Settings:
        cfg = compose(hydra.job.config_name, [*typed_for_hydra(), *typed, f"model={preset}"])
        planned_settings(kind, cfg)
        settings: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
        return settings

    chosen = hydra.runtime.choices["model"]
    cfg = compose(hydra.job.config_name, [*typed_for_hydra(), *hydra.overrides.task])
    grid: Any = OmegaConf.to_container(cfg.grid) if "grid" in cfg else {chosen: cfg.checkpoint}
    named = chosen if len(typed) < len(hydra.overrides.task) else None
    return ladders_of(grid, settings_of, named, read_rates(cfg.rates))


def typed_for_hydra() -> list[str]:
    """Typed overrides of Hydra itself: where to look for configs, which launcher."""
    return [override for override in HydraConfig.get().overrides.hydra if _key(override) != "hydra.mode"]


def train_overrides(overrides: Sequence[str]) -> list[str]:
    """Those that train.py takes and a plan's command does not give."""
    given = ("model", "checkpoint", "layer")
    return [one for one in overrides if _key(one) not in given and _key(one).split(".")[0] not in OWN]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]
