"""Read the files of other libraries and build an SAE from them. Nothing is ever unpickled.

Every key and every tensor of a file is used, or known to have no part in encoding and decoding, or refused by name. If
one that matters were ignored, the SAE would look right and compute something else.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import JumpReLU, SparseAutoencoder, Weights

# Arguments that matter only in training, so they are in no file.
JUMP_RELU = {"l0": 0.0, "initial_threshold": 0.0, "bandwidth": 1.0, "seed": 0}

ANY = None  # in a table of keys: any value is accepted, since it is checked elsewhere or changes nothing
Keys = Mapping[str, Collection[Any] | None]  # the keys that a library writes, and the values that can be read
FLOATS = ("float32", "float64", "float16", "bfloat16")
DTYPES = (None, *FLOATS, *(f"torch.{name}" for name in FLOATS))  # of weights; here they are read as float32


@dataclass(frozen=True, eq=False)
class Foreign:
    """An SAE of another library. `hook` is the place that it reads, as its files name it; None: they do not."""

    sae: SparseAutoencoder
    hook: str | None


def refused(found: object, reason: str) -> Refused:
    """The refusal of a source: `found` is a file or a folder."""
    return Refused("source", found, reason)


def settings(path: Path) -> dict[str, Any]:
    """Read a file with a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refused(path, f"cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise refused(path, "is not a JSON object")
    return content


def tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, or a torch file that holds only tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own message tells the user how to run the file's code
        remedy = "is damaged, or holds Python objects, which could run code; save the SAE's state_dict() in its place"
        raise refused(path, remedy) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise refused(path, f"cannot be read: {error}") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise refused(path, "holds something other than named tensors")
    return dict(content)


def wanted(settings: Mapping[str, Any], key: str, allowed: Mapping[Any, Any], source: Path) -> Any:
    """Look up the value of a key in `allowed`; a value that is not there is refused."""
    try:
        return allowed[settings[key]]
    except (KeyError, TypeError):
        raise _unreadable(settings, key, allowed, source) from None


def any_value(keys: str) -> Keys:
    """A table of keys that accept any value; `keys` holds their names, separated by spaces."""
    return dict.fromkeys(keys.split(), ANY)


def check_keys(settings: Mapping[str, Any], keys: Keys, source: Path) -> None:
    """Refuse a key that is not in `keys`, or a value that `keys` does not allow."""
    for key, value in settings.items():
        if key not in keys:
            remedy = "a key that is not known; take it out of the file if encoding and decoding do not depend on it"
            raise refused(source, f"{key} is {value!r:.80}: {remedy}")
        allowed = keys[key]
        if allowed is not None and value not in allowed:
            raise _unreadable(settings, key, allowed, source)


def check_sizes(settings: Mapping[str, Any], sizes: Mapping[str, int | float], source: Path) -> None:
    """Refuse a key that gives another size than the tensors have."""
    for key, size in sizes.items():
        if settings.get(key, size) != size:
            raise refused(source, f"{key} is {settings[key]!r}, but the tensors have {size}")


def _unreadable(settings: Mapping[str, Any], key: str, allowed: Collection[Any], source: Path) -> Refused:
    return refused(source, f"{key} is {settings.get(key)!r:.80}; can be read: {', '.join(map(repr, allowed))}")


@torch.no_grad()
def assembled(kind: type[SparseAutoencoder], weights: Weights, source: Path, **arguments: Any) -> SparseAutoencoder:
    """Build an SAE from weights.

    Args:
        kind: its class.
        weights: in any float dtype.
        source: the file or folder, for messages.
        arguments: of the class, besides d_model and latents.

    Raises:
        Refused: the weights' shapes do not fit each other, or a weight is not finite.
    """
    matrix = weights.W_enc.shape
    shapes = [tuple(tensor.shape) for tensor in weights]
    if len(matrix) != 2 or shapes != [tuple(matrix), (matrix[0],), tuple(matrix), (matrix[1],)]:
        raise refused(source, f"its tensors are {shapes}, not [latent, d_model], [latent], the first again, [d_model]")
    if not all(tensor.isfinite().all() for tensor in weights):
        raise refused(source, "some weights are not finite")
    sae = kind(d_model=matrix[1], latents=matrix[0], **arguments)
    for parameter, value in zip(sae.weights, weights, strict=True):
        parameter.copy_(value)
    return sae


@torch.no_grad()
def with_threshold(kind: type[JumpReLU], weights: Weights, threshold: Tensor, source: Path) -> JumpReLU:
    """Build a JumpReLU SAE; `threshold` is [latent], or one number for all latents."""
    sae = assembled(kind, weights, source, **JUMP_RELU)
    assert isinstance(sae, kind)
    if threshold.shape not in ((), sae.threshold.shape) or not threshold.isfinite().all():
        raise refused(source, "its threshold must be finite, and one number or a number for each latent")
    sae.threshold.copy_(threshold)
    return sae


def picked(
    stored: Mapping[str, Tensor], names: Mapping[str, str], source: Path, others: Collection[str] = ()
) -> Weights:
    """Pick an SAE's weights, as float32, from the tensors of a file.

    Args:
        stored: the file's tensors by name.
        names: for each field of Weights its name in the file, with `.T` at the end if it is transposed there.
        source: the file or folder, for messages.
        others: names of tensors that the file may hold besides.

    Raises:
        Refused: a tensor is missing, not of floats, or not expected.
    """
    chosen = {to: named(stored, name.removesuffix(".T"), source) for to, name in names.items()}
    if unknown := sorted(set(stored) - {name.removesuffix(".T") for name in names.values()} - set(others)):
        raise refused(source, f"holds tensors that this kind of SAE does not have: {', '.join(unknown)}")
    return Weights(**{to: (chosen[to].T if names[to].endswith(".T") else chosen[to]).float() for to in chosen})


def named(stored: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """One tensor of floats from the tensors of a file."""
    if name not in stored:
        raise refused(source, f"lacks {name!r}; holds {', '.join(sorted(stored))}")
    if not stored[name].is_floating_point():
        raise refused(
            source, f"{name} is of {stored[name].dtype}, and the file does not say how to turn these into numbers"
        )
    return stored[name]


def unit_decoder(weights: Weights) -> Weights:
    """The same SAE with decoder directions of norm 1: the codes are multiplied by the former norms."""
    norm = torch.linalg.vector_norm(weights.W_dec, dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    W_enc, W_dec = weights.W_enc * norm[:, None], weights.W_dec / norm[:, None]
    return weights._replace(W_enc=W_enc, b_enc=weights.b_enc * norm, W_dec=W_dec)


def whole_k(given: object, source: Path, *in_files: object) -> int:
    """The number of latents that a token keeps: from the files, or else the user's (`given`); all must agree."""
    values = [k for k in (*in_files, given) if k is not None]
    k = values[0] if values else None
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise Refused("k", k, f"{source} does not say how many latents a token keeps; give k=...")
    if others := [other for other in values if other != k]:
        raise Refused("k", others[0], f"{source} says {k}")
    return k
