"""Ladders of a grid as the commands compose them."""

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bisae.grid.ladders import Ladder, ladders_of
from bisae.grid.rates import Rates


def composed(
    config: Callable[..., DictConfig], *overrides: str, only: str | None = None, rates: Rates | None = None
) -> list[Ladder]:
    """Of config key `grid` as it is with these overrides."""

    def settings_of(*more: str) -> Any:
        return OmegaConf.to_container(config(*overrides, *more, name="plan", tiny=False), resolve=True)

    return ladders_of(settings_of()["grid"], lambda preset: settings_of(f"model={preset}"), only, rates or {})
