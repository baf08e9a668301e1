"""Checks of single values, and nested values made flat."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused


def listed(value: object) -> list[Any]:
    """Return a list as it is, and any other value in a list."""
    return value if isinstance(value, list) else [value]


def numbers(field: str, values: list[Any]) -> list[float]:
    """Return the values as floats. Raises Refused unless all are finite numbers, and there is at least one."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Refused(field, value, "must be a number")
    if not values:
        raise Refused(field, values, "give at least one number")
    return [float(value) for value in values]


def check_texts(field: str, value: object) -> list[str]:
    """Return the texts of a field that has one text or several. Raises Refused for anything else."""
    values = listed(value)
    if not values or not all(isinstance(text, str) and text for text in values):
        raise Refused(field, value, "must be text, or a list of texts")
    return values


def writable(folders: Mapping[str, Path]) -> None:
    """Make each folder. Raises Refused for the field of a folder that cannot be made."""
    for field, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(field, folder, f"cannot be made: {error.strerror}") from error


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested mappings with their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
