"""Warm starts: the trained SAE that a member begins with in place of fresh weights (`sae.start`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bisae.cells.find import find_cells
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum

if TYPE_CHECKING:  # slow to import, and a finished job needs none
    from torch import Tensor

    from bisae.sae import SparseAutoencoder

PREVIOUS = "previous"  # the same SAE of the checkpoint before


@dataclass(frozen=True)
class Start:
    """A trained SAE.

    Args:
        folder: where it lies.
        identity: what stands for it in the identity of a cell that starts from it: the hash of a cell, which says how
            it was made, or the checksum of weights that are no cell's.
    """

    folder: Path
    identity: str

    def state(self, sae: "SparseAutoencoder") -> "dict[str, Tensor]":
        """Its parameters and buffers. Refused (`start`) if they are not of the kind and shape of those of `sae`."""
        from bisae.sae import load
        from bisae.sae.store import is_shipped

        try:
            saved = load(self.folder, classes=() if is_shipped(type(sae)) else (type(sae),))
        except (OSError, ValueError, TypeError) as error:
            raise Refused("start", self.folder, str(error)) from error
        if saved.architecture != sae.architecture:
            raise Refused("start", self.folder, f"is a {saved.architecture} SAE, but sae makes a {sae.architecture}")
        state, needed = saved.state_dict(), sae.state_dict()
        for name, tensor in needed.items():
            found = state[name]
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                shapes = f"{list(found.shape)} {found.dtype}, but sae needs {list(tensor.shape)} {tensor.dtype}"
                raise Refused("start", self.folder, f"its {name} is {shapes}: other latents, LM or precision?")
        return state


def named_start(where: str, runs: Path, layer: int, sae: Mapping[str, Any]) -> Start:
    """The SAE that `where` names for a member.

    Args:
        where: a folder of a saved SAE; or cells, as in `find_cells`, of which those of the layer are taken, and of
            several the one with the settings of the member.
        runs: where cells lie.
        layer: of the member.
        sae: the settings in the member's identity.

    Raises:
        Refused: `start` names no SAE for the member, or several.
    """
    for folder in (Path(where).expanduser(), runs / where):
        if (folder / "sae.json").is_file() and not (folder / "cell.json").exists():
            return Start(folder, checksum([folder / "sae.safetensors"]))
    try:
        cells = find_cells(where, runs)
    except Refused as error:
        raise Refused("start", where, error.remedy) from error
    here = [cell for cell in cells if cell.layer == layer]
    if not here:
        raise Refused("start", where, f"names no cell of layer {layer}, only of {sorted({c.layer for c in cells})}")
    alike = here if len(here) == 1 else [cell for cell in here if cell.identity["sae"] == sae]
    if len(alike) != 1:
        found = [cell.name for cell in alike or here]
        some = f"{len(found)} cells of layer {layer}, as {' and '.join(found[:2])}"
        raise Refused("start", where, f"names {some}; name one" + (" with these settings of sae" if not alike else ""))
    return Start(alike[0].folder, alike[0].hash)


def steps_until(checkpoint: int | str, ladder: Sequence[int | str] | None) -> list[int | str]:
    """The steps of `ladder` up to `checkpoint`, in the ladder's order. Raises Refused if it is not one of them."""
    if ladder is None:
        remedy = "before which? Give the steps in their order, ladder=[0,256,final], or sweep over checkpoint with -m"
        raise Refused("start", PREVIOUS, remedy)
    if checkpoint not in ladder or len(set(ladder)) != len(ladder):
        raise Refused("ladder", ladder, f"must name each step once, and checkpoint={checkpoint} among them")
    return list(ladder[: ladder.index(checkpoint) + 1])
