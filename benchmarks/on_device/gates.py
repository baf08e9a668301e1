"""Gates: the gradients, latents and bits of each backend, before anything of it is timed."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from work import Shape, work

from bisae.sae.encoder import Weights
from on_device.about import DEVICE
from on_device.backends import Backend, Training, backends
from on_device.timing import Budget

ALLOWED = 1e-6  # relative error of a gradient in float32 against float64
TIE = 1e-6  # of values of about 1: latents closer to the k-th than this may be kept or not
HALF_TIE = 2.0**-6  # the same where the product is in bf16
STEPS = 4


def errors(backend: Backend, shape: Shape, k: int) -> dict[str, float]:
    """Relative errors of a step's gradients; `selection`: how far below the k-th one is kept, or above it left out.

    The truth is dense autograd in float64. With a bf16 product the values are those of that product, which a gradient
    does not change, so the truth takes them as they are.
    """
    directions, batches = work(shape, 0, DEVICE.type)
    g = torch.Generator(DEVICE).manual_seed(1)

    def moved(start: Tensor) -> Tensor:
        return start + 0.1 * torch.randn(start.shape, generator=g, device=DEVICE)

    training = Training(backend, directions, k)
    with torch.no_grad():
        for weight in training.sae.weights:
            weight.copy_(moved(weight))
    x = batches[0]
    with backend.context():
        found = training.sae.objective(x)
    found.loss.backward()

    leaves = Weights(*(weight.detach().double().requires_grad_() for weight in training.sae.weights))
    pre = (x.double() - leaves.b_pre) @ leaves.W_enc.T + leaves.b_enc
    values = found.codes.dense().double()
    kept = values > 0
    threshold = pre.detach().topk(k)[0][:, -1:].clamp_min(0)
    wrong = (pre.detach() - threshold)[kept != ((pre >= threshold) & (pre > 0))]
    codes = pre * kept
    result = {"selection": float(wrong.abs().max()) if len(wrong) else 0.0}
    if backend.bf16:
        codes = codes + (values - codes).detach()
    else:
        result["values"] = float((values - codes.detach()).norm() / codes.detach().norm())
    x_hat = codes @ leaves.W_dec + leaves.b_pre
    truth = torch.autograd.grad((x_hat - x).square().sum(1).mean(), list(leaves))
    for name, weight, expected in zip(Weights._fields, training.sae.weights, truth, strict=True):
        assert weight.grad is not None
        result[name] = float((weight.grad.double() - expected).norm() / expected.norm())
    return result


def trained(backend: Backend, shape: Shape, k: int, steps: int = STEPS) -> str:
    """The bits of a training's weights."""
    directions, batches = work(shape, 0, DEVICE.type)
    training = Training(backend, directions, k)
    for number in range(steps):
        training.step(batches[number % len(batches)])
    return training.bits()


def gates(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a backend, with whether it passes."""
    small, k = (Shape(32, 256, 96), 8) if budget.smoke else (Shape(256, 4096, 1024), 32)
    large = small if budget.smoke else Shape(2048, 32768, 8192)
    for backend in backends():
        if not budget.allows(2):
            return
        found = errors(backend, small, k)
        selection = found.pop("selection")
        exact = max(found.values()) <= ALLOWED and selection <= (HALF_TIE if backend.bf16 else TIE)
        same = trained(backend, large, k) == trained(backend, large, k)
        yield {
            "backend": backend.name,
            "precision": backend.precision,
            "passes": exact and same,
            "bit_equal": same,
            "selection": selection,
            **found,
        }
