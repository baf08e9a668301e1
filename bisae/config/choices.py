"""Keys that name several things at once: layers, and lists of settings of `sae`."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from bisae.runtime.errors import ConfigError


def layers_of(chosen: object, deepest: int) -> list[int]:
    """The layers of config key `layer`: an integer, a list, or "all" = 1..deepest. Layer 0 is the embeddings."""
    if chosen == "all":
        return list(range(1, deepest + 1))
    layers = []
    for layer in chosen if isinstance(chosen, list) else [chosen]:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer <= deepest:
            raise ConfigError("layer", layer, f"choose layers within 0..{deepest} (0 = embeddings), a list, or `all`")
        layers.append(layer)
    if not layers or len(set(layers)) != len(layers):
        raise ConfigError("layer", layers, "name at least one layer, and each once")
    return sorted(layers)


def variants(settings: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Every combination of the list-valued keys of config group `sae`; without lists, the settings themselves."""
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    for key, values in lists.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise ConfigError(f"sae.{key}", list(values), "a list needs at least one value, and each once")
    for chosen in product(*lists.values()):
        yield {**settings, **dict(zip(lists, chosen, strict=True))}
