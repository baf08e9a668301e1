"""From the fields that lower layers refuse to the keys of a command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bisae.config.settings import Command
from bisae.runtime.errors import ConfigError, Refused


def keys_in(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of a config, of mappings too, from the top down."""
    for name in settings:
        yield f"{prefix}{name}"
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from keys_in(value, f"{prefix}{name}.")


def key_of(field: str, settings: Mapping[str, Any], scope: str = "") -> str:
    """The key that sets `field`: the first by depth below the node `scope`, else in all of the config.

    `size` is left out: its keys only hold what others refer to. A field that no key sets is named as it is.
    """
    keys = sorted((key for key in keys_in(settings) if not key.startswith("size.")), key=lambda key: key.count("."))
    found = [key for key in keys if key == field or key.endswith(f".{field}")]
    below = [key for key in found if key.startswith(f"{scope}.")]
    return next(iter(below or found), field)


# Fields of an LM. Other groups have some of them too; an LM of a cell, whose config no key sets, is named `model`.
MODEL_FIELDS = (
    *("name", "path", "revision", "step_unit", "steps", "final_path", "final_step", "tokenizer", "tokens_per_step"),
    *("hook", "trust_remote_code", "unpack_to"),
)


def model_keys(model: object) -> dict[str, str]:
    """The key of each field of an LM: below `model`, or `model` itself where the config leaves it to the cells."""
    return {field: f"model.{field}" if model else "model" for field in MODEL_FIELDS}


@contextmanager
def refused_by_key(settings: Command | Mapping[str, Any], scope: str = "", **keys: str) -> Iterator[None]:
    """Inside, a refused field becomes a ConfigError that names its key: that in `keys`, or the one `key_of` finds.

    With `scope` only keys below it are looked for: other fields are refused as they are, for who calls.
    """
    try:
        yield
    except ConfigError:
        raise
    except Refused as refused:
        typed = settings.model_dump(by_alias=True) if isinstance(settings, Command) else settings
        key = keys.get(refused.field) or key_of(refused.field, typed, scope)
        if scope and not key.startswith(f"{scope}.") and refused.field not in keys:
            raise
        raise ConfigError(key, refused.found, refused.remedy) from refused
