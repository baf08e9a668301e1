"""Adam that forms a matrix's gradient, applies it and normalises its rows a block at a time, in the cache."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bisae.sae import SparseAutoencoder
from bisae.sae.encoder import normalize_rows
from bisae.sae.kernels.products import RowSums
from bisae.sae.store import is_shipped

Optimizer = Callable[..., torch.optim.Optimizer]  # makes one of parameter groups


def by_block(
    optimizer: Optimizer,
    saes: Iterable[SparseAutoencoder],
    device: torch.device,
    devices: int,
    clip: int | float | None,
) -> Optimizer:
    """A `BlockedAdam` in the place of fused Adam and AdamW where it gives the same bits and is no slower.

    Not on devices that share batches, which average whole gradients, nor with clipping; and classes of a user's own may
    look for gradients, or normalise rows in their own way. On a GPU a block is a whole matrix, so that no more is
    computed than without, and kernels can form a gradient and apply it in one; that was not measured.
    """
    base = SparseAutoencoder.normalize_decoder
    alike = [is_shipped(type(sae)) and type(sae).normalize_decoder is base for sae in saes]
    possible = device.type in ("cpu", "cuda") and devices == 1 and not clip and all(alike)
    return (possible and blocked_form(optimizer)) or optimizer


def blocked_form(optimizer: Optimizer) -> Optimizer | None:
    """The `BlockedAdam` of the same updates; None if there is none."""
    if not isinstance(optimizer, partial):
        return None
    given = optimizer.keywords
    decoupled = {torch.optim.Adam: {}, torch.optim.AdamW: {"decoupled_weight_decay": True, "weight_decay": 0.01}}
    plain = not any(given.get(name) for name in ("amsgrad", "capturable", "differentiable", "foreach"))
    if optimizer.func not in decoupled or not given.get("fused") or not plain:
        return None
    return partial(BlockedAdam, *optimizer.args, **{**decoupled[optimizer.func], **given})


class BlockedAdam(torch.optim.Adam):
    """torch.optim.Adam(fused=True), or AdamW with `decoupled_weight_decay`, of gradients in `.grad` or given to `take`.

    The updates are the same, and so is the state dict. No gradient of a taken matrix ever exists as a whole, so it can
    neither be clipped nor averaged over ranks, and takes no memory; only its norm can be computed.

    Any optimizer may have a `take`: training then hands it the gradients of W_enc and W_dec, leaves it to normalise
    the decoder's rows, and refuses devices that share batches.
    """

    def __init__(self, params: Iterable[Any], **settings: Any) -> None:
        super().__init__(params, **settings)
        if settings.get("amsgrad") or not settings.get("fused"):
            raise ValueError("BlockedAdam needs fused=true and amsgrad=false")
        self._taken: dict[Tensor, list[RowSums]] = {}
        self._unit: set[Tensor] = set()

    def take(self, matrix: Tensor, gradient: RowSums, unit_rows: bool) -> None:
        """Add to the gradient of `matrix`, one of the parameters; with `unit_rows` a step also normalises its rows."""
        self._taken.setdefault(matrix, []).append(gradient)
        if unit_rows:
            self._unit.add(matrix)

    @torch.no_grad()
    def gradient_norm(self, parameters: Iterable[Tensor]) -> Tensor:
        """The L2 norm of the gradient of these parameters, formed once more, a block at a time."""
        squares = []
        for parameter in parameters:
            if parameter in self._taken:
                squares += [gradient.double().square().sum() for _, gradient in self._blocks(parameter)]
            elif parameter.grad is not None:
                squares.append(parameter.grad.double().square().sum())
        return torch.stack(squares).sum().sqrt()

    def _blocks(self, matrix: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The gradient of a taken matrix, as (latents, their rows)."""
        for parts in zip(*(gradient.blocks() for gradient in self._taken[matrix]), strict=True):
            block = parts[0][0]
            gradient = sum((part for _, part in parts[1:]), start=parts[0][1])
            if matrix.grad is not None:  # of the auxiliary loss
                gradient += matrix.grad[block]
            yield block, gradient

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._taken.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix in self._taken:
                    self._update(matrix, group)
                    matrix.grad = None  # not once more below
        super().step()
        return loss

    def _update(self, matrix: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=matrix.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(matrix), torch.zeros_like(matrix)
        state["step"] += 1
        named = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
        named["beta1"], named["beta2"] = group["betas"]
        whole, *others = self._taken[matrix]
        fused = getattr(whole.products, "adam", None)
        if fused and not others and matrix.grad is None:
            unit_rows = matrix in self._unit
            if fused(matrix, state, whole.rows, whole.weights, named, unit_rows):
                return
        update = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_
        for block, gradient in self._blocks(matrix):
            rows, average, square = matrix[block], state["exp_avg"][block], state["exp_avg_sq"][block]
            update([rows], [gradient], [average], [square], [], [state["step"]], **named)
            if matrix in self._unit:
                normalize_rows(rows)
