"""Adam that forms a matrix's gradient, applies it and normalises its rows a block at a time, in the cache."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bisae.sae.encoder import normalize_rows
from bisae.sae.kernels.products import RowSums


class BlockedAdam(torch.optim.Adam):
    """torch.optim.Adam(fused=True) for parameters with `.grad` and for those whose gradient it is given by `take`.

    The updates are the same, and so is the state dict. No gradient of a taken matrix ever exists as a whole, so it can
    neither be clipped nor averaged over ranks, and takes no memory.

    Any optimizer may have a `take`: training then hands it the gradients of W_enc and W_dec, leaves it to normalise
    the decoder's rows, and refuses several devices.
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
        for parts in zip(*(gradient.blocks() for gradient in self._taken[matrix]), strict=True):
            block = parts[0][0]
            gradient = sum((part for _, part in parts[1:]), start=parts[0][1])
            if matrix.grad is not None:  # of the auxiliary loss
                gradient += matrix.grad[block]
            rows, average, square = matrix[block], state["exp_avg"][block], state["exp_avg_sq"][block]
            torch._fused_adam_([rows], [gradient], [average], [square], [], [state["step"]], **named)
            if matrix in self._unit:
                normalize_rows(rows)
