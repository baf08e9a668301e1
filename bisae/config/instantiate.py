"""Objects from config nodes with `_target_`."""

from typing import Any

import hydra.utils
from hydra.errors import InstantiationException

from bisae.config.moved import with_current_paths
from bisae.runtime.errors import ConfigError, Refused


def instantiate(node: Any, **arguments: Any) -> Any:
    """Like `hydra.utils.instantiate`, also for paths that classes had once (`bisae.config.moved`).

    A Refused raised by the constructor is re-raised unchanged, and a TypeError or ValueError becomes a ConfigError.
    """
    try:
        return hydra.utils.instantiate(with_current_paths(node), **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, Refused):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError | ValueError):
            raise ConfigError("_target_", node["_target_"], str(error.__cause__)) from error
        raise
