"""SAE classes that a user has written. bisae imports them only if a command names them.

Such a class needs an `architecture` of its own, and must behave as the rest of bisae expects of an SAE: `check_own`
tries this before any work.
"""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.values import listed
from bisae.sae.objective import alone
from bisae.sae.sparse_autoencoder import SparseAutoencoder
from bisae.sae.store import class_name, class_of, is_shipped, summary

ROWS = 16  # random activations that a class is tried on


def named_classes(sae_classes: object) -> tuple[type[SparseAutoencoder], ...]:
    """Import SAE classes.

    Args:
        sae_classes: a full name, as `mine.MySAE`, or a list of them.

    Raises:
        Refused: a name cannot be imported, is not a subclass of SparseAutoencoder, or has no architecture of its own.
    """
    classes: dict[str, type[SparseAutoencoder]] = {}
    for name in listed(sae_classes):
        try:
            kind = resolve_name(str(name))
        except (ImportError, AttributeError, ValueError) as error:
            remedy = f"must be the full name of a class that can be imported ({error}); is its folder in PYTHONPATH?"
            raise Refused("sae_classes", name, remedy) from error
        if not isinstance(kind, type) or not issubclass(kind, SparseAutoencoder):
            raise Refused("sae_classes", name, "is no subclass of bisae.sae.SparseAutoencoder")
        try:
            class_of(kind.architecture, (kind,), own=True)
        except (TypeError, AttributeError) as error:
            raise Refused("sae_classes", name, str(error)) from error
        if classes.setdefault(kind.architecture, kind) is not kind:
            other = class_name(classes[kind.architecture])
            raise Refused("sae_classes", name, f"its architecture {kind.architecture!r} is that of {other} too")
    return tuple(classes.values())


def check_own(sae: Any, target: str, latents: int) -> None:
    """Refuse, before training, an SAE that other commands could not use.

    SAEs of bisae's own classes pass. Of any other, a copy takes a training step on random activations. Then an SAE made
    from its `arguments` and state_dict() must encode the same, a token's codes must not depend on other tokens, and
    encoding and decoding must follow from its weights.

    Args:
        sae: the object that the config's `_target_` returned.
        target: that `_target_`, for messages.
        latents: the number of latents in the config.

    Raises:
        Refused: as `_target_`, with the reason.
    """

    def refuse(reason: str) -> Refused:
        return Refused("_target_", target, reason)

    if not isinstance(sae, SparseAutoencoder):
        raise refuse(f"makes a {type(sae).__name__}; must make a subclass of bisae.sae.SparseAutoencoder")
    if is_shipped(type(sae)):
        return
    try:
        class_of(sae.architecture, (type(sae),), own=True)
    except (TypeError, AttributeError) as error:
        raise refuse(str(error)) from error
    try:
        importable = resolve_name(class_name(type(sae))) is type(sae)
    except (ImportError, AttributeError, ValueError):
        importable = False
    if not importable:
        raise refuse(f"makes a {class_name(type(sae))}, which cannot be imported by that name to read the SAE again")
    if sae.latents != latents:
        raise refuse(f"has {sae.latents} latents, but its setting latents is {latents}")

    with torch.random.fork_rng():
        torch.manual_seed(0)
        activations = torch.randn(ROWS, sae.d_model) * torch.logspace(-1, 1, ROWS)[:, None] + 0.5
        trained = _after_a_step(sae, activations).eval()
        try:
            arguments = json.loads(json.dumps(dict(trained.arguments)))
            again = type(sae)(**arguments).eval()
            again.load_state_dict(trained.state_dict())
            # Of a save, not of a cell: what `again` encodes must not depend on it.
            deepcopy(again).load_extra_state(json.loads(json.dumps(dict(trained.extra_state()))))
        except (TypeError, ValueError, LookupError, RuntimeError) as error:
            remedy = "its `arguments`, state_dict() and extra_state() do not make it again"
            raise refuse(f"{remedy}: {type(error).__name__}: {error}") from error
    with torch.no_grad():
        for broken, reason in _contract(trained, again, activations):
            if broken():
                raise refuse(reason)


def _after_a_step(sae: SparseAutoencoder, activations: Tensor) -> SparseAutoencoder:
    trained = deepcopy(sae).train()
    x, _ = trained.normalize(activations)
    trained.initialize_b_pre(x)
    dead = torch.zeros(sae.latents, dtype=torch.bool) if sae.aux_k else None
    trained.objective(x, dead, alone, None).loss.backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
        trained.normalize_decoder()
    trained.zero_grad(set_to_none=True)
    return trained


def _contract(
    sae: SparseAutoencoder, again: SparseAutoencoder, activations: Tensor
) -> Sequence[tuple[Callable[[], bool], str]]:
    """Pairs of (whether a rule is broken, the message that says so)."""
    x, norm = sae.normalize(activations)
    codes = sae.encode_unit(x)
    dense, x_hat = codes.dense(), sae.decode(codes)
    return (
        (
            lambda: (
                _apart(summary(sae), summary(again))
                or _apart(dense, again.encode_unit(again.normalize(activations)[0]).dense())
            ),
            "an SAE made again of its `arguments` and state_dict() encodes differently; what it has learnt belongs in "
            "parameters and buffers, its settings in `arguments`",
        ),
        (
            lambda: _apart(dense, sae.encode(activations).dense()),
            "`encode` must give the codes of `encode_unit(normalize(activations)[0])`",
        ),
        (
            lambda: _apart(dense, sae.select(sae.pre_activations(x)).dense()),
            "`encode_unit(x)` must give the codes of `select(pre_activations(x))`",
        ),
        (
            lambda: _apart(dense[:3], sae.encode(activations[:3]).dense()),
            "a token's codes must not depend on the other tokens of its batch, once training is over",
        ),
        (
            lambda: _apart(x_hat, dense @ sae.W_dec + sae.b_pre),
            "`decode` must be codes @ W_dec + b_pre: interventions and the browser take W_dec for the directions",
        ),
        (
            lambda: _apart(sae.reconstruct(activations).activation, x_hat * norm[:, None]),
            "`reconstruct` must decode what `encode_unit` gives, times the norm",
        ),
    )


def _apart(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
