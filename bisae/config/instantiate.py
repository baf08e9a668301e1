"""Objects from config nodes with `_target_`."""

from collections.abc import Mapping
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from bisae.config.keys import key_of, keys_in
from bisae.config.moved import with_current_paths
from bisae.runtime.errors import ConfigError, Refused


def instantiate(node: Mapping[str, Any], key: str = "", **arguments: Any) -> Any:
    """Like `hydra.utils.instantiate`, also for paths that classes had once (`bisae.config.moved`).

    Args:
        node: a config node with `_target_`.
        key: the key of the node, for messages.
        arguments: further arguments of the constructor.

    Raises:
        ConfigError: the constructor refuses an argument, or raises a TypeError or ValueError.
        Refused: the constructor refuses what is no argument of the node.
    """
    try:
        return hydra.utils.instantiate(with_current_paths(node), **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Refused) and not isinstance(cause, ConfigError):
            place = key_of(cause.field, node)
            if place == cause.field and place not in keys_in(node):
                raise cause from None
            raise ConfigError(f"{key}.{place}".lstrip("."), cause.found, cause.remedy) from cause
        if isinstance(cause, ConfigError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError):
            raise ConfigError(f"{key}._target_".lstrip("."), node["_target_"], str(cause)) from error
        raise
