"""The ladders that a command line of `bisae plan` or `bisae status` names."""

from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bisae.config.values import check_values
from bisae.grid.ladders import Ladder, Settings, ladders_of
from bisae.grid.rates import read_rates

OWN = ("machine", "layers_at_once", "rates", "contexts", "write", "html")  # keys that train.py does not know


def composed_ladders() -> list[Ladder]:
    """Those of `grid`, or of its `model` if one is typed; without a grid the one job of `model` and `checkpoint`."""
    hydra = HydraConfig.get()
    typed = [override for override in hydra.overrides.task if _key(override) != "model"]

    def settings_of(preset: str) -> Settings:
        cfg = compose(hydra.job.config_name, [*typed_for_hydra(), *typed, f"model={preset}"])
        settings: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=False)
        check_values(settings)
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
