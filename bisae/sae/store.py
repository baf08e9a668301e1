"""SAEs on disk, readable without the trainer: `sae.safetensors` (the weights) and `sae.json` (what they are)."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bisae.atomic import atomic_file, write_json
from bisae.sae.batch_topk import BatchTopK
from bisae.sae.jump_relu import JumpReLU
from bisae.sae.matryoshka import Matryoshka
from bisae.sae.raw import RawJumpReLU, RawReLU, RawTopK
from bisae.sae.relu_l1 import ReLUL1
from bisae.sae.sparse_autoencoder import SparseAutoencoder
from bisae.sae.topk import TopK

FORMAT = 1
KINDS = (TopK, ReLUL1, BatchTopK, JumpReLU, Matryoshka, RawTopK, RawReLU, RawJumpReLU)
ARCHITECTURES: dict[str, type[SparseAutoencoder]] = {kind.architecture: kind for kind in KINDS}


def save(sae: SparseAutoencoder, folder: str | Path, **metadata: Any) -> None:
    """Write `sae` to `folder`, with any JSON-able `metadata` (LM, layer, step, ...).

    An SAE already there is replaced. `sae.json` goes first and comes back last, so a kill in between leaves
    a folder that `load` refuses, never old settings with new weights.

    Raises:
        TypeError, ValueError: `metadata` has no JSON form; nothing is written.
    """
    folder = Path(folder)
    card = {"format": FORMAT, "architecture": sae.architecture, "arguments": sae.arguments, "metadata": metadata}
    json.dumps(card)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sae.state_dict().items()}
    (folder / "sae.json").unlink(missing_ok=True)
    with atomic_file(folder / "sae.safetensors") as temporary:
        save_file(tensors, temporary)
    write_json(folder / "sae.json", card)


def load(folder: str | Path, device: str = "cpu") -> SparseAutoencoder:
    """Read what `save` wrote, with the same weights bit by bit and in their dtype.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is broken, foreign, or does not fit the other; the message names it.
    """
    folder = Path(folder)
    card = _card(folder)
    path = folder / "sae.json"
    kind = ARCHITECTURES.get(str(card["architecture"]))
    if kind is None:
        raise ValueError(f"{path}: unknown architecture {card['architecture']!r}, known: {', '.join(ARCHITECTURES)}")
    try:
        sae = kind(**card["arguments"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: these arguments make no {kind.architecture} SAE: {error}") from error
    path = folder / "sae.safetensors"
    tensors = _tensors(path)
    expected = sae.state_dict()
    if tensors.keys() != expected.keys():
        raise ValueError(f"{path}: holds {', '.join(sorted(tensors))}; a {kind.architecture} SAE {', '.join(expected)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
            raise ValueError(f"{path}: {name} has shape {found}, but sae.json means {wanted}")
    sae.load_state_dict(tensors, assign=True)
    return sae.to(device)


def load_metadata(folder: str | Path) -> dict[str, Any]:
    """The `metadata` given to `save`. Raises like `load`."""
    metadata: dict[str, Any] = _card(Path(folder))["metadata"]
    return metadata


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "sae.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, so no (complete) SAE here")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(card, dict) or card.keys() != {"format", "architecture", "arguments", "metadata"}:
        raise ValueError(f"{path}: not written by bisae: expected format, architecture, arguments and metadata")
    if card["format"] != FORMAT:
        raise ValueError(f"{path}: format {card['format']!r}, this version reads {FORMAT}")
    if not isinstance(card["arguments"], dict) or not isinstance(card["metadata"], dict):
        raise ValueError(f"{path}: arguments and metadata must be objects")
    return card


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: truncated or no safetensors file: {error}") from error
    return tensors
