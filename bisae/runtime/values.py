"""Checks of single values, and nested values made flat."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused


def listed(value: object) -> list[Any]:
    """One value, or a list of them, as a list."""
    return value if isinstance(value, list) else [value]


def numbers(field: str, values: list[Any]) -> list[float]:
    """Refused unless all are finite numbers, and there is one."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Refused(field, value, "must be a number")
    if not values:
        raise Refused(field, values, "give a number at least")
    return [float(value) for value in values]


def check_texts(field: str, value: object) -> list[str]:
    """The values of a field that holds one text or several."""
    values = listed(value)
    if not values or not all(isinstance(text, str) and text for text in values):
        raise Refused(field, value, "must be text, or a list of texts")
    return values


def writable(folders: Mapping[str, Path]) -> None:
    """Make each folder, so that a place that cannot be written is refused by its field."""
    for field, folder in folders.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(field, folder, f"cannot be made: {error.strerror}") from error


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of a tree, by dotted key."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
