"""Cells as SAEs of other libraries."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bisae.cells.find import FoundCell
from bisae.convert.fit_to_lm import Sample
from bisae.convert.folded import folded
from bisae.convert.formats import chosen_format, must_fold
from bisae.runtime.atomic import atomic_folder, write_json
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder, load

log = logging.getLogger("bisae.convert")


def loaded(cell: FoundCell, place: Path, classes: Sequence[type[SparseAutoencoder]]) -> SparseAutoencoder:
    """The SAE that is to be written to `place`, read with `classes` as `load` does; Refused if that cannot be, or
    `place` is there already."""
    if place.exists():
        raise Refused("output", place, "is there already")
    try:
        return load(cell.folder, classes=classes)
    except (OSError, ValueError) as error:
        raise Refused("cell", cell.folder, str(error)) from error


def export(
    cell: FoundCell,
    name: str,
    output: Path,
    norm: float | None,
    sample: Callable[[], Sample],
    classes: Sequence[type[SparseAutoencoder]] = (),
) -> Path:
    """Write the cell's SAE below `output` as the format `name` has it; the folder also gets `bisae.json`.

    Formats without inputs of norm 1 get a typical norm folded in, `norm` or the mean of the `sample`, which is asked
    for only then: exact for activations of that norm, for others an approximation whose error on the sample is noted.
    """
    place = output / cell.name
    sae = loaded(cell, place, classes)
    about: dict[str, Any] = {"format": name, "exact": not must_fold(sae, name)}
    if not about["exact"]:
        about["norm"] = norm
        if norm is None:
            found = sample()
            about["norm"] = found.norm(cell.layer)
            raw = folded(sae, about["norm"])
            lost = (found.quality(one, cell.layer)["fvu_raw"] for one in (sae, raw))
            about |= {"tokens": len(found.language), **dict(zip(("fvu_raw", "fvu_raw_folded"), lost, strict=True))}
        sae = folded(sae, about["norm"])
        log.warning("approximate, since %s has no inputs of norm 1: %s", name, about)
    said = {"model": cell.model, "step": cell.step, "layer": cell.layer, "sae": cell.sae, "hash": cell.hash}
    with atomic_folder(place) as temporary:
        chosen_format(name).write(sae, cell, temporary)
        write_json(temporary / "bisae.json", {**said, "metrics": cell.metrics, "identity": cell.identity, **about})
    return place
