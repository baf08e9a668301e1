"""Write cells as SAEs of other libraries."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bisae.cells.find import FoundCell
from bisae.convert.fit_to_lm import Sample
from bisae.convert.formats import chosen_format, must_fold
from bisae.convert.source import JUMP_RELU
from bisae.runtime.atomic import atomic_folder, write_json
from bisae.runtime.errors import Refused
from bisae.sae import BatchTopK, JumpReLU, SparseAutoencoder, load
from bisae.sae.architectures.raw import RAW

log = logging.getLogger("bisae.convert")


def loaded(cell: FoundCell, place: Path, classes: Sequence[type[SparseAutoencoder]]) -> SparseAutoencoder:
    """Read a cell's SAE that is to be written to `place`.

    Args:
        cell: to read.
        place: must not exist.
        classes: SAE classes of the user's own, for `load`.

    Raises:
        Refused: as `output` if `place` exists, as `cell` if the SAE cannot be read.
    """
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
    """Write a cell's SAE and a `bisae.json` that describes it, in the files of another library.

    A format without inputs of norm 1 gets an SAE with a norm folded in. That SAE is exact for activations of this norm,
    and an approximation for others.

    Args:
        cell: to export.
        name: of the format.
        output: the SAE goes to `<output>/<cell's name>`.
        norm: L2 norm to fold in; None: the mean norm of the sample. The error on the sample is then noted.
        sample: makes the sample; called only if it is needed.
        classes: SAE classes of the user's own, for `load`.

    Returns:
        The folder written.

    Raises:
        Refused: the folder exists, the SAE cannot be read, or the format cannot hold it.
    """
    place = output / cell.name
    sae = loaded(cell, place, classes)
    about: dict[str, Any] = {"format": name, "exact": not must_fold(sae, name)}
    if not about["exact"]:
        about["norm"] = norm
        if norm is None:
            measured = sample()
            about["norm"] = measured.norm(cell.layer)
            raw = folded(sae, about["norm"])
            lost = (measured.quality(version, cell.layer)["fvu_raw"] for version in (sae, raw))
            about |= {"tokens": len(measured.language), **dict(zip(("fvu_raw", "fvu_raw_folded"), lost, strict=True))}
        sae = folded(sae, about["norm"])
        log.warning("approximate, since %s has no inputs of norm 1: %s", name, about)
    source = {"model": cell.model, "step": cell.step, "layer": cell.layer, "sae": cell.sae, "hash": cell.hash}
    with atomic_folder(place) as temporary:
        chosen_format(name).write(sae, cell, temporary)
        write_json(temporary / "bisae.json", {**source, "metrics": cell.metrics, "identity": cell.identity, **about})
    return place


@torch.no_grad()
def folded(sae: SparseAutoencoder, norm: float) -> SparseAutoencoder:
    """An SAE that reads unnormalised activations: for those of this L2 norm it reconstructs the same as `sae`.

    Its codes are `norm` times as large.
    """
    arguments: dict[str, Any] = dict(sae.arguments)
    state = sae.state_dict()
    if isinstance(sae, BatchTopK):
        arguments = {"d_model": sae.d_model, "latents": sae.latents, **JUMP_RELU}
        state["threshold"] = sae.threshold.expand(sae.latents)
    raw = RAW[type(sae)](**arguments)
    raw.load_state_dict(state)
    for tensor in (raw.b_enc, raw.b_pre, *([raw.threshold] if isinstance(raw, JumpReLU) else [])):
        tensor.mul_(norm)
    return raw
