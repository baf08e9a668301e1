"""The parts of a step by themselves, by each way to compute them.

Contenders that training does not have: flashinfer's deterministic selection, where it is installed, and torch.compile
of what no kernel of ours computes. Steps also with whole gradients, to compare with updates by block.
"""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from steps import ADAM
from torch import Tensor
from work import K, Shape, work

from bisae.sae.encoder import normalize_rows, top_k
from bisae.sae.kernels.products import SparseProducts
from on_device.about import DEVICE, has_triton
from on_device.backends import Training, backends
from on_device.steps_stage import LATENTS, product_of
from on_device.timing import Budget, in_turn

ROUNDS = 10


def prepared(x: Tensor, b_pre: Tensor) -> tuple[Tensor, Tensor]:
    """A batch of activations as an SAE sees it: unit rows, and centred in bf16."""
    rows = x.float()
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows, (rows - b_pre).bfloat16()


def whole_gradients(training: Training) -> Callable[[Tensor], None]:
    """A step with gradients that exist as a whole, fused Adam and unit rows, one after the other."""
    adam = torch.optim.Adam(training.sae.parameters(), fused=True, **ADAM)

    def step(x: Tensor) -> None:
        adam.zero_grad()
        with training.backend.context():
            loss = training.sae.objective(x).loss
        loss.backward()
        adam.step()
        normalize_rows(training.sae.W_dec)

    return step


def parts(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a part and the way it is computed."""
    shape = Shape(64, 1024, 256) if budget.smoke else Shape(2048, LATENTS, 32768)
    directions, batches = work(shape, 0, DEVICE.type)
    x = batches[0]
    pre = product_of(directions, x)()
    codes = top_k(pre.float(), K)
    weights = torch.randn(len(codes.values), device=DEVICE)
    ways: dict[str, dict[str, Callable[[], Any]]] = {
        "selection": {
            "torch, bf16": partial(pre.topk, K, sorted=False),
            "torch, float32": lambda: pre.float().topk(K, sorted=False),
        },
        "order by latent": {"torch": partial(SparseProducts, codes)},
        "decode": {"torch": partial(SparseProducts(codes).decode, directions)},
        "gradient of the activations": {"torch": partial(SparseProducts(codes).dots, x, directions)},
        "gradient of a matrix": {"torch": partial(SparseProducts(codes).sums, x, weights)},
    }
    if DEVICE.type == "cuda" and importlib.util.find_spec("flashinfer"):
        import flashinfer

        ways["selection"]["flashinfer, deterministic"] = lambda: flashinfer.top_k(pre, K, deterministic=True)
    if has_triton():
        from bisae.sae.kernels.triton_products import TritonProducts
        from bisae.sae.kernels.triton_selection import largest

        ways["selection"]["triton"] = partial(largest, pre, K)
        ours = TritonProducts(codes)
        ways["decode"]["triton"] = partial(ours.decode, directions)
        ways["gradient of the activations"]["triton"] = partial(ours.dots, x, directions)
        ways["gradient of a matrix"]["triton"] = partial(ours.sums, x, weights)
    for backend in backends():
        training = {how: Training(backend, directions.clone(), K) for how in ("by block", "whole gradients")}
        steps = training["by block"].step, whole_gradients(training["whole gradients"])
        for how, step in zip(training, steps, strict=True):
            ways.setdefault(f"step, {backend.name}, {backend.precision}", {})[how] = partial(step, x)
    left, arguments = ways.setdefault("normalise, centre, round to bf16", {}), (x.bfloat16(), directions.mean(0))
    left["torch"] = partial(prepared, *arguments)
    if DEVICE.type == "cuda":  # last: a compiler that fails takes nothing else with it
        left["torch.compile"] = partial(torch.compile(prepared, dynamic=False), *arguments)
    for part, by in ways.items():
        if not budget.allows(1):
            return
        times = in_turn(by, 2 if budget.smoke else ROUNDS)
        for way, found in times.items():
            yield {**shape._asdict(), "k": K, "part": part, "way": way, "seconds": median(found)}
