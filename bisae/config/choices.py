"""Keys that name several things at once: layers, and lists of settings of `sae`."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from bisae.runtime.errors import ConfigError
from bisae.runtime.values import listed


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


def check_k_by_layer(k_by_layer: Mapping[int, int], sae: Mapping[str, Any], deepest: int) -> None:
    """Refuse layers that the LM does not have, a k above the number of latents, and any k of an SAE that has none."""
    for layer, k in k_by_layer.items():
        if "k" not in sae:
            raise ConfigError("k_by_layer", dict(k_by_layer), f"sae={sae['name']} keeps no fixed number of latents")
        if not 0 <= layer <= deepest:
            raise ConfigError(f"k_by_layer.{layer}", k, f"the LM has the layers 0..{deepest} (0 = embeddings)")
        numbers = [latents for latents in listed(sae.get("latents")) if type(latents) is int]  # others: refused later
        if numbers and k > min(numbers):
            raise ConfigError(f"k_by_layer.{layer}", k, f"must be between 1 and sae.latents={min(numbers)}")


def variants(settings: Mapping[str, Any], k: int | None = None) -> Iterable[dict[str, Any]]:
    """Every combination of the list-valued keys of config group `sae`; without lists, the settings themselves.

    `k`: of all of them, where the layer has a k of its own (`k_by_layer`).
    """
    settings = settings if k is None else {**settings, "k": k}
    lists = {key: value for key, value in settings.items() if isinstance(value, list)}
    for key, values in lists.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise ConfigError(f"sae.{key}", list(values), "a list needs at least one value, and each once")
    for chosen in product(*lists.values()):
        yield {**settings, **dict(zip(lists, chosen, strict=True))}
