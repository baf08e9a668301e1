"""SAEs on disk, readable without the trainer: `sae.safetensors` (weights), `sae.json` (architecture, arguments).

For an SAE of a user's own class, `sae.json` also holds the class's name and the SAE's outputs on a few activations.
Such a class is never imported here: the caller passes it to `load`.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bisae.runtime.atomic import atomic_file, write_json
from bisae.sae.architectures.batch_topk import BatchTopK
from bisae.sae.architectures.jump_relu import JumpReLU
from bisae.sae.architectures.matryoshka import Matryoshka
from bisae.sae.architectures.raw import Identity, RawJumpReLU, RawReLU, RawTopK
from bisae.sae.architectures.relu_l1 import ReLUL1
from bisae.sae.architectures.topk import TopK
from bisae.sae.architectures.triton_topk import TritonTopK
from bisae.sae.sparse_autoencoder import SparseAutoencoder

FORMAT = 1
KINDS = (TopK, ReLUL1, BatchTopK, JumpReLU, Matryoshka, RawTopK, RawReLU, RawJumpReLU)
ARCHITECTURES: dict[str, type[SparseAutoencoder]] = {kind.architecture: kind for kind in KINDS}
# Computed differently in training than the class that they are saved as.
TRAINED_OTHERWISE = (TritonTopK, Identity)
SUMMED_UP = 8  # number of activations that `summary` encodes


def is_shipped(kind: type[SparseAutoencoder]) -> bool:
    """True for bisae's own classes, false for any subclass of them that a user has written."""
    return kind in (*KINDS, *TRAINED_OTHERWISE)


def class_name(kind: type) -> str:
    """The full name of a class, as an import path."""
    return f"{kind.__module__}.{kind.__qualname__}"


def class_of(
    architecture: str, classes: Collection[type[SparseAutoencoder]], own: bool
) -> type[SparseAutoencoder] | None:
    """The class of an architecture; None if it is not known.

    Args:
        architecture: the name in a saved file.
        classes: SAE classes of the user's own.
        own: look among `classes`; else among bisae's own.

    Raises:
        TypeError: one of `classes` has no architecture of its own.
    """
    for kind in classes:
        if "architecture" not in vars(kind) or kind.architecture in ARCHITECTURES:
            raise TypeError(
                f'{class_name(kind)} needs an architecture of its own, a line architecture = "..." in its body; '
                f"{kind.architecture!r} is another class's, as which its SAEs would be read"
            )
    known = {kind.architecture: kind for kind in classes} if own else ARCHITECTURES
    return known.get(architecture)


@torch.no_grad()
def summary(sae: SparseAutoencoder) -> Tensor:
    """A fingerprint of how an SAE encodes: it changes if the code of the SAE's class changes.

    Returns:
        [activation, 2]: the sum of the codes and the norm of the reconstruction, on a few activations that are computed
        from the SAE's own weights.
    """
    training, directions = sae.training, sae.W_dec[:: max(1, sae.latents // SUMMED_UP)][:SUMMED_UP]
    reconstruction = sae.eval().reconstruct(directions + directions.roll(1, 0) + sae.b_pre)
    sae.train(training)
    return torch.stack(
        [reconstruction.codes.dense().sum(1), torch.linalg.vector_norm(reconstruction.activation, dim=1)], dim=1
    )


def save(sae: SparseAutoencoder, folder: str | Path, **metadata: Any) -> None:
    """Write `sae` to `folder`; an SAE already there is replaced.

    `sae.json` is deleted first and written last. So a process killed in between leaves a folder that `load` refuses,
    never old settings with new weights.

    Args:
        sae: of bisae's own classes, or of another with an `architecture` of its own.
        folder: is made if it does not exist.
        metadata: any values with a JSON form (LM, layer, step, ...), for `load_metadata`.

    Raises:
        TypeError, ValueError: `metadata` has no JSON form, or the SAE's class has no architecture of its own. Then
            nothing is written.
    """
    folder = Path(folder)
    card = {"format": FORMAT, "architecture": sae.architecture, "arguments": sae.arguments, "metadata": metadata}
    if not is_shipped(type(sae)):
        class_of(sae.architecture, (type(sae),), own=True)
        card |= {"class": class_name(type(sae)), "summary": summary(sae).tolist()}
    json.dumps(card)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in sae.state_dict().items()}
    (folder / "sae.json").unlink(missing_ok=True)
    with atomic_file(folder / "sae.safetensors") as temporary:
        save_file(tensors, temporary)
    write_json(folder / "sae.json", card)


def load(
    folder: str | Path, device: str = "cpu", classes: Collection[type[SparseAutoencoder]] = ()
) -> SparseAutoencoder:
    """Read an SAE that `save` wrote.

    An SAE of a user's own class is read only if the class is among `classes`, and if it still gives the same output on
    a few activations as when the SAE was saved.

    Args:
        folder: holds `sae.json` and `sae.safetensors`.
        device: where the weights go.
        classes: SAE classes of your own that the SAE may be of.

    Returns:
        The SAE in evaluation mode, with the same weights bit by bit, in their saved dtype.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is broken, was not written by `save`, or does not fit the other file; or the SAE's class is
            not given or has changed. The message names the file or class.
        TypeError: one of `classes` has no architecture of its own.
    """
    folder = Path(folder)
    kind = saved_class(folder, classes)
    card, path = _card(folder), folder / "sae.json"
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
            shape, needed = tuple(tensor.shape), tuple(expected[name].shape)
            raise ValueError(f"{path}: {name} has shape {shape}, but sae.json needs {needed}")
    sae.load_state_dict(tensors, assign=True)
    sae.eval()
    if "summary" in card:
        saved, now = torch.tensor(card["summary"], dtype=sae.W_dec.dtype), summary(sae)
        if saved.shape != now.shape or not torch.allclose(saved, now, rtol=1e-3, atol=1e-6):
            raise ValueError(f"{folder}: {class_name(kind)} encodes differently than when this SAE was saved")
    return sae.to(device)


def saved_class(folder: str | Path, classes: Collection[type[SparseAutoencoder]] = ()) -> type[SparseAutoencoder]:
    """The class of the SAE in `folder`; reads only `sae.json`. Raises the same errors as `load`."""
    card, path = _card(Path(folder)), Path(folder) / "sae.json"
    own = card.get("class")
    kind = class_of(str(card["architecture"]), classes, own is not None)
    if kind is None and own is not None:
        remedy = f"give sae_classes=[{own}], or load(..., classes=[...]), if you trust it"
        raise ValueError(f"{path}: this SAE is of the class {own}, which is not one of bisae's; {remedy}")
    if kind is None:
        raise ValueError(f"{path}: unknown architecture {card['architecture']!r}, known: {', '.join(ARCHITECTURES)}")
    return kind


def saved_arguments(folder: str | Path) -> dict[str, Any]:
    """The arguments of the SAE in `folder`, such as `d_model`. Raises the same errors as `load`."""
    arguments: dict[str, Any] = _card(Path(folder))["arguments"]
    return arguments


def load_metadata(folder: str | Path) -> dict[str, Any]:
    """The `metadata` given to `save`. Raises the same errors as `load`."""
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
    needed = {"format", "architecture", "arguments", "metadata"}
    if not isinstance(card, dict) or card.keys() not in (needed, needed | {"class", "summary"}):
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
