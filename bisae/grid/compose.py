"""The ladders named on the command line of `bisae plan` or `bisae status`."""

from collections.abc import Sequence
from typing import Any, TypeVar

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from bisae.config.settings import Command, read_settings
from bisae.grid.ladders import Ladder, Settings, is_step, ladders_of
from bisae.grid.rates import read_rates
from bisae.lm.model import FINAL
from bisae.runtime.errors import Refused

OWN = ("machine", "layers_at_once", "rates", "contexts", "write", "html")  # keys that train.py does not know


Planned = TypeVar("Planned", bound=Command)


def planned_settings(kind: type[Planned], cfg: Any) -> Planned:
    """Settings of a grid, whose `checkpoint` may be left open: each command of the grid gives it."""
    if OmegaConf.is_missing(cfg, "checkpoint"):
        cfg = OmegaConf.merge(cfg, {"checkpoint": FINAL})
    else:
        one_step(cfg.checkpoint, HydraConfig.get().runtime.choices["model"])
    return read_settings(kind, cfg)


def composed_ladders(kind: type[Command]) -> list[Ladder]:
    """The ladders of `grid`, only that of `model` where it is typed; without a grid one job: `model` at `checkpoint`.

    Args:
        kind: the settings of the command.

    Raises:
        Refused: `checkpoint` is not one step, or is typed beside a grid, which would not read it.
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
    if "grid" not in cfg:
        grid: Any = {chosen: [one_step(cfg.checkpoint, chosen)]}
    elif any(_key(override) == "checkpoint" for override in typed):
        remedy = f"the grid gives the steps: leave checkpoint out, or type 'grid={{{chosen}:[0,512]}}'"
        raise Refused("checkpoint", cfg.checkpoint, remedy)
    else:
        grid = OmegaConf.to_container(cfg.grid)
    named = chosen if len(typed) < len(hydra.overrides.task) else None
    return ladders_of(grid, settings_of, named, read_rates(cfg.rates))


def one_step(checkpoint: object, preset: str) -> int | str:
    """`checkpoint` as it is; Refused unless it is one step, with how the steps of a grid are typed."""
    if isinstance(checkpoint, int | str) and is_step(checkpoint):
        return checkpoint
    remedy = f"must be one step, a number or `{FINAL}`; for the steps of a grid type '+grid={{{preset}:[0,512]}}'"
    raise Refused("checkpoint", checkpoint, remedy)


def typed_for_hydra() -> list[str]:
    """The typed overrides of Hydra itself, such as its search path or launcher."""
    return [override for override in HydraConfig.get().overrides.hydra if _key(override) != "hydra.mode"]


def train_overrides(overrides: Sequence[str]) -> list[str]:
    """The overrides that train.py accepts and that a plan's command does not set itself."""
    given = ("model", "checkpoint", "layer")
    return [typed for typed in overrides if _key(typed) not in given and _key(typed).split(".")[0] not in OWN]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=")[0]
