"""What other libraries' files hold, and an SAE made of it. Nothing is ever unpickled.

Every key and every tensor of a file is used, known to have no part in encoding and decoding, or refused by name: an SAE
read without one that has may look well and be another.
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

# What is of training only, so in no file.
JUMP_RELU = {"l0": 0.0, "initial_threshold": 0.0, "bandwidth": 1.0, "seed": 0}

ANY = None  # in a table of keys: the value is used or checked elsewhere, or changes nothing
Keys = Mapping[str, Collection[Any] | None]  # the keys a library writes, and which values of them can be read
FLOATS = ("float32", "float64", "float16", "bfloat16")
DTYPES = (None, *FLOATS, *(f"torch.{name}" for name in FLOATS))  # of weights; here they are read as float32


@dataclass(frozen=True, eq=False)
class Foreign:
    """An SAE of another library; `hook`, where it reads, as its files name it; None where they do not."""

    sae: SparseAutoencoder
    hook: str | None


def refused(found: object, reason: str) -> Refused:
    return Refused("source", found, reason)


def settings(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refused(path, f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise refused(path, "is no JSON object")
    return found


def tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file, or a torch file of nothing but tensors."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's own message tells how to run what is in the file
        remedy = "is damaged, or holds Python objects, which could run code; save the SAE's state_dict() in its place"
        raise refused(path, remedy) from error
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise refused(path, f"cannot be read: {error}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise refused(path, "holds something else than named tensors")
    return dict(found)


def wanted(settings: Mapping[str, Any], key: str, allowed: Mapping[Any, Any], source: Path) -> Any:
    """What `allowed` says of the value of a key; Refused for any other value."""
    try:
        return allowed[settings[key]]
    except (KeyError, TypeError):
        raise _unreadable(settings, key, allowed, source) from None


def any_value(keys: str) -> Keys:
    """A table of these keys, a text of names; their values change nothing, or are looked at elsewhere."""
    return dict.fromkeys(keys.split(), ANY)


def check_keys(settings: Mapping[str, Any], keys: Keys, source: Path) -> None:
    """Refused for a key that is not in `keys`, or a value of one that cannot be read."""
    for key, value in settings.items():
        if key not in keys:
            remedy = "a key that is not known; take it out of the file if encoding and decoding do not depend on it"
            raise refused(source, f"{key} is {value!r:.80}: {remedy}")
        allowed = keys[key]
        if allowed is not None and value not in allowed:
            raise _unreadable(settings, key, allowed, source)


def check_sizes(settings: Mapping[str, Any], sizes: Mapping[str, int | float], source: Path) -> None:
    """Refused for a key that gives another size than the tensors have."""
    for key, size in sizes.items():
        if settings.get(key, size) != size:
            raise refused(source, f"{key} is {settings[key]!r}, but the tensors have {size}")


def _unreadable(settings: Mapping[str, Any], key: str, allowed: Collection[Any], source: Path) -> Refused:
    return refused(source, f"{key} is {settings.get(key)!r:.80}; can be read: {', '.join(map(repr, allowed))}")


@torch.no_grad()
def assembled(kind: type[SparseAutoencoder], weights: Weights, source: Path, **arguments: Any) -> SparseAutoencoder:
    """An SAE with these weights; Refused if they do not fit each other or are not finite."""
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
    """A JumpReLU SAE; `threshold` is of each latent, or one for all."""
    sae = assembled(kind, weights, source, **JUMP_RELU)
    assert isinstance(sae, kind)
    if threshold.shape not in ((), sae.threshold.shape) or not threshold.isfinite().all():
        raise refused(source, "its threshold is not finite, or not one for all or each of the latents")
    sae.threshold.copy_(threshold)
    return sae


def picked(
    found: Mapping[str, Tensor], names: Mapping[str, str], source: Path, others: Collection[str] = ()
) -> Weights:
    """The tensors of an SAE by their `names` in the file, in float32; one with `.T` lies there the other way round.

    Refused if the file holds tensors besides these and `others`.
    """
    chosen = {to: named(found, name.removesuffix(".T"), source) for to, name in names.items()}
    if unknown := sorted(set(found) - {name.removesuffix(".T") for name in names.values()} - set(others)):
        raise refused(source, f"holds tensors that this kind of SAE does not have: {', '.join(unknown)}")
    return Weights(**{to: (chosen[to].T if names[to].endswith(".T") else chosen[to]).float() for to in chosen})


def named(found: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """A tensor of a file."""
    if name not in found:
        raise refused(source, f"lacks {name!r}; holds {', '.join(sorted(found))}")
    if not found[name].is_floating_point():
        raise refused(source, f"{name} is of {found[name].dtype}, and how that stands for numbers is not said")
    return found[name]


def unit_decoder(weights: Weights) -> Weights:
    """Directions of norm 1, whose former norms the codes take over."""
    norm = torch.linalg.vector_norm(weights.W_dec, dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    W_enc, W_dec = weights.W_enc * norm[:, None], weights.W_dec / norm[:, None]
    return weights._replace(W_enc=W_enc, b_enc=weights.b_enc * norm, W_dec=W_dec)


def whole_k(given: object, source: Path, *said: object) -> int:
    """The number of latents a token keeps: what the files say, or else what was `given`; all must agree."""
    values = [k for k in (*said, given) if k is not None]
    k = values[0] if values else None
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise Refused("k", k, f"{source} does not say how many latents a token keeps; give k=...")
    if others := [other for other in values if other != k]:
        raise Refused("k", others[0], f"{source} says {k}")
    return k
