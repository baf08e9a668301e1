"""Config nodes of the wrong shape, refused by key: a mapping of the shipped config must be one, with its keys."""

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from bisae.config.folder import CONF
from bisae.config.moved import current
from bisae.runtime.errors import ConfigError

UNCHOSEN = {"_target_": "???"}
# Mappings to which keys may be added, and from which they may be taken: what is compared with what is added.
OPEN = {"translation.metrics": UNCHOSEN, "report.bins.lm_seeds": None}
# What is read of these, whatever class they are of.
COMMON = {
    "sae": ("name", "latents", "seed", "lr", "dead_after"),
    "activations": ("pass",),
    "trainer": ("devices", "precision"),
}


def check_shape(command: str, settings: Mapping[str, Any]) -> None:
    """Compare with what is shipped for train, analyze or intervene: what is a mapping there must be one, with its keys.

    Objects (`_target_`) of another class may have other keys. What is null there may be anything, a group that is not
    chosen null or an object. No number anywhere may be infinite.
    """
    shipped = _shipped(CONF / f"{command}.yaml")
    for key, model in shipped.items():
        if not settings.get(key) and (model == UNCHOSEN or key == "translation"):
            continue
        if key not in settings:
            raise ConfigError(key, "???", "give a value")
        _compare(key, model, settings[key])
    for key, value in settings.items():
        _check_finite(key, value)


@lru_cache
def _shipped(file: Path) -> dict[str, Any]:
    """A config file with the groups it chooses below it; no overrides, experiments and values of `${...}`."""
    own: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    chosen = {}
    for group in own.pop("defaults", []):
        for key, name in group.items() if isinstance(group, dict) else ():
            if key != "experiment" and not key.startswith("override "):
                chosen[key] = _shipped(file.parent / key / f"{name}.yaml") if name else UNCHOSEN
    own.pop("hydra", None)
    return {**own, **{key: {**node, **own.get(key, {})} for key, node in chosen.items()}}


def _compare(key: str, model: Any, found: Any) -> None:
    if not isinstance(model, dict):
        return
    if not isinstance(found, Mapping):
        raise ConfigError(key, found, f"has keys of its own{': ' * bool(model)}{', '.join(model)}")
    target = current(found.get("_target_"))
    same = target == model.get("_target_")
    if "_target_" in model and not same:
        try:
            known = callable(resolve_name(str(target)))
        except (ImportError, AttributeError, ValueError):
            known = False
        if not known:
            raise ConfigError(f"{key}._target_", target, "must be the full name of a class that can be imported")
    if key not in OPEN:
        for name in model if same else COMMON.get(key, ()):
            if name not in found:
                raise ConfigError(f"{key}.{name}", "???", "give a value")
        if unknown := [name for name in found if name not in model and "_target_" not in model]:
            raise ConfigError(f"{key}.{unknown[0]}", found[unknown[0]], f"no such key; there are {', '.join(model)}")
    for name in found:
        _compare(f"{key}.{name}", model.get(name, OPEN.get(key)), found[name])


def _check_finite(key: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, value, "must be a finite number")
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        _check_finite(f"{key}.{name}", inner)
    for inner in value if isinstance(value, list) else ():
        _check_finite(key, inner)
