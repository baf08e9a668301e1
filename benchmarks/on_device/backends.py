"""The ways bisae can train a TopK SAE, and a training of one of them."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from steps import ADAM
from torch import Tensor

from bisae.runtime.device import sum_in_float32
from bisae.sae import TopK
from bisae.sae.architectures.triton_topk import TritonTopK
from bisae.training.blocked_adam import BlockedAdam
from on_device.about import DEVICE, has_triton

sum_in_float32()  # as training does


class Backend(NamedTuple):
    """A class of SAE that is saved as TopK, and the precision of its encoder's product."""

    name: str
    bf16: bool  # trainer.precision=bf16-mixed; else 32-true
    make: Callable[[int, int, int], TopK]  # of (d_model, latents, k)

    @property
    def precision(self) -> str:
        return "bf16-mixed" if self.bf16 else "32-true"

    def context(self) -> AbstractContextManager[Any]:
        return torch.autocast(DEVICE.type, torch.bfloat16) if self.bf16 else nullcontext()


def backends() -> list[Backend]:
    """Those that run here, with the default of `experiment=paper` first."""
    found = [Backend("torch", True, _plain), Backend("torch", False, _plain)]
    found.append(Backend("candidates", False, lambda d, n, k: _with_candidates(d, n, k, 2 * k)))
    if has_triton():
        found += [Backend("triton", True, TritonTopK), Backend("triton", False, TritonTopK)]
    return found


def _with_candidates(d_model: int, latents: int, k: int, candidates: int | str) -> TopK:
    sae = TopK(d_model, latents, k)
    sae.set_candidates(candidates)
    return sae


def _plain(d_model: int, latents: int, k: int) -> TopK:
    return _with_candidates(d_model, latents, k, "none")


class Training:
    """An SAE and its optimizer, which start from `directions`."""

    def __init__(self, backend: Backend, directions: Tensor, k: int) -> None:
        latents, d_model = directions.shape
        self.backend, self.sae = backend, backend.make(d_model, latents, k).to(directions.device)
        with torch.no_grad():
            self.sae.W_enc.copy_(directions)
            self.sae.W_dec.copy_(directions)
        self.adam = BlockedAdam(self.sae.parameters(), fused=True, **ADAM)

    def step(self, x: Tensor) -> Tensor:
        self.adam.zero_grad()
        with self.backend.context():
            loss = self.sae.objective(x, take=self.adam.take).loss
        loss.backward()
        self.adam.step()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        return {"sae": self.sae.state_dict(), "adam": self.adam.state_dict(), "extra": dict(self.sae.extra_state())}

    def load(self, state: Mapping[str, Any]) -> None:
        self.sae.load_state_dict(state["sae"])
        self.adam.load_state_dict(state["adam"])
        self.sae.load_extra_state(state["extra"])

    def bits(self) -> str:
        """A hash of all weights."""
        digest = hashlib.sha256()
        for weight in self.sae.weights:
            digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
