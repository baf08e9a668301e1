"""The learning rate of each model and layer, found by a search: python -m bisae rates [runs=...] [output=...]

python -m bisae plan experiment=lr_search        prints the commands that train the search's cells
python -m bisae rates                       takes the rate of least val/fvu, and writes rates.yaml
python -m bisae plan experiment=paper_grid rates=rates.yaml
"""

import logging
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bisae.cells.find import FoundCell
from bisae.runtime.errors import Refused

Rates = Mapping[str, Mapping[int, float]]  # model: {layer: rate}
log = logging.getLogger("bisae.grid.rates")


def best_rates(cells: Sequence[FoundCell]) -> dict[str, dict[int, float]]:
    """The learning rate with the least val/fvu, as a mean over steps and seeds, for each model and layer.

    Raises:
        Refused: cells differ in more than rate, step and seed, or not every rate has as many cells.
    """
    scores: dict[tuple[str, int], dict[float, list[float]]] = {}
    others: dict[tuple[str, int], dict[str, Any]] = {}
    for cell in cells:
        sae = {key: value for key, value in cell.identity["sae"].items() if key not in ("lr", "seed")}
        data = {key: value for key, value in cell.identity["data"].items() if key != "seed"}
        how = {key: cell.identity.get(key) for key in ("optimizer", "scheduler", "snapshot")}
        place = cell.model, cell.layer
        rest = {"sae": sae, "data": data, "started": "start" in cell.identity, **how}
        if others.setdefault(place, rest) != rest:
            raise Refused("runs", cell.folder, "differs from others in more than the learning rate: name one search")
        scores.setdefault(place, {}).setdefault(cell.identity["sae"]["lr"], []).append(cell.metrics["val/fvu"])
    best: dict[str, dict[int, float]] = {}
    for (model, layer), by_rate in sorted(scores.items()):
        counts = {rate: len(fvus) for rate, fvus in by_rate.items()}
        if len(set(counts.values())) > 1:
            raise Refused(
                "runs", model, f"layer {layer}: not as many cells of every rate ({counts}): finish the search"
            )
        rate = min(by_rate, key=lambda rate: mean(by_rate[rate]))
        if len(by_rate) > 1 and rate in (min(by_rate), max(by_rate)):
            log.warning("%s layer %d: the best rate, %g, is at the edge of those tried", model, layer, rate)
        best.setdefault(model, {})[layer] = rate
    return best


def read_rates(file: str | None) -> Rates:
    """Read a file of `python -m bisae rates`; empty for None. Any other content is refused."""
    if file is None:
        return {}
    try:
        rates: Any = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:  # ValueError: not UTF-8
        raise Refused("rates", file, f"cannot be read: {error}") from error
    whole = isinstance(rates, dict) and all(
        isinstance(layers, dict)
        and all(type(layer) is int and isinstance(rate, float) and rate > 0 for layer, rate in layers.items())
        for layers in rates.values()
    )
    if not whole:
        raise Refused("rates", file, "must hold {model: {layer: rate}}, as python -m bisae rates writes it")
    return rates
