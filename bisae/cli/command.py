"""From a config to a command: settings that are checked, and refusals that name keys."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from rich.console import Console
from rich.syntax import Syntax
from rich.tree import Tree

from bisae.config.keys import model_keys, refused_by_key
from bisae.config.settings import Command, read_settings
from bisae.runtime.errors import ConfigError, explained
from bisae.runtime.ranks import rank

Result = TypeVar("Result")
Settings = TypeVar("Settings", bound=Command)


def command(kind: type[Settings]) -> Callable[[Callable[[Settings, Any], Result]], Callable[[Any], Result]]:
    """Decorator of a command `(settings, cfg)`, which becomes a function of the config `cfg` alone.

    ConfigError for settings that are not those of `kind`, and for each field that the command refuses, by its key.
    """

    def with_settings(run: Callable[[Settings, Any], Result]) -> Callable[[Any], Result]:
        @functools.wraps(run)
        def checked(cfg: Any) -> Result:
            if HydraConfig.initialized() and HydraConfig.get().job.chdir:
                raise ConfigError(
                    "hydra.job.chdir", True, "paths are relative to where a command is typed; leave it out"
                )
            settings = read_settings(kind, cfg)
            if settings.print_config and rank() == 0:
                print_tree(cfg)
            with refused_by_key(settings, **keys_of_all(settings)):
                return run(settings, cfg)

        return checked

    return with_settings


def print_tree(cfg: Any) -> None:
    """Print a config, resolved, with a branch for each key."""
    tree = Tree("config", guide_style="dim")
    for key, value in cfg.items():
        shown = OmegaConf.to_yaml(value, resolve=True) if OmegaConf.is_config(value) else str(value)
        tree.add(str(key)).add(Syntax(shown.rstrip(), "yaml", background_color="default"))
    Console().print(tree)


def keys_of_all(settings: Command) -> dict[str, str]:
    """Fields whose key follows from the command: cells are named by `runs`, an LM's fields stand below `model`."""
    fields = type(settings).model_fields
    named = model_keys(getattr(settings, "model", None)) if "model" in fields else {}
    return {"cells": "runs"} | {field: key for field, key in named.items() if field not in fields}


def ends_with_a_line(main: Callable[[Any], object]) -> Callable[[Any], None]:
    """Decorator below `hydra.main`: errors that a user can mend end the process with `error: ...` and status 1."""

    @functools.wraps(main)
    def job(cfg: Any) -> None:
        try:
            main(cfg)
        except Exception as error:
            if mendable := explained(error):
                raise SystemExit(f"error: {mendable}") from None
            raise

    return job
