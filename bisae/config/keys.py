"""From the fields that lower layers refuse to the keys of a command."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def refused_by_key(settings: Mapping[str, Any], scope: str = "", **keys: str) -> Iterator[None]:
    """Inside, a refused field becomes a ConfigError that names its key: that in `keys`, or the one `key_of` finds."""
    try:
        yield
    except ConfigError:
        raise
    except Refused as refused:
        key = keys.get(refused.field) or key_of(refused.field, settings, scope)
        raise ConfigError(key, refused.found, refused.remedy) from refused
