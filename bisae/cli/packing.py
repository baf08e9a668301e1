"""Jobs of a sweep that differ only in `layer` and `sae.*` become one, since its SAEs share a process and a stream."""

from collections.abc import Sequence
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer

KEPT = ("sae._target_", "sae.name")  # a job each


def packed(overrides: Sequence[str], most: int) -> list[str]:
    """The overrides of a sweep, with sweeps over `layer` and `sae.*` as lists: the same cells in fewer jobs.

    Args:
        overrides: as typed; all that are sweeps stand for the product of their values.
        most: SAEs of a job. A key whose values would make them more stays a sweep.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = [one.key_or_group for one in parsed]
    given = {index: listed for index, one in enumerate(parsed) if (listed := _values(one)) is not None}
    if any(one.key_or_group == "layer" and _value(one) == "all" for one in parsed):
        return list(overrides)  # how many layers, the LM knows
    count = prod(len(values) for index, values in given.items() if not parsed[index].is_sweep_override())
    found = list(overrides)
    for index, values in given.items():
        one = parsed[index]
        if one.is_sweep_override() and keys.count(one.key_or_group) == 1 and count * len(values) <= most:
            name, _, _ = overrides[index].partition("=")
            found[index] = f"{name}=[{','.join(one.sweep_string_iterator())}]"
            count *= len(values)
    return found


def _value(override: Override) -> Any:
    return None if override.is_sweep_override() else override.value()


def _values(override: Override) -> list[Any] | None:
    """The values of a key that one job can have several of, if they are plain ones; else None."""
    key = override.key_or_group
    if not (key == "layer" or key.startswith("sae.")) or key.startswith(KEPT) or override.is_delete():
        return None
    values = list(override.sweep_iterator(Transformer.identity)) if override.is_discrete_sweep() else _value(override)
    plain = isinstance(values, list) and all(value is None or isinstance(value, int | float | str) for value in values)
    return values if plain and (key != "layer" or "all" not in values) else None
