"""The parts of a step by themselves, by each way to compute them."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from work import K, Shape, work

from bisae.sae.encoder import top_k
from bisae.sae.kernels.products import SparseProducts
from on_device.about import DEVICE, has_triton
from on_device.steps_stage import LATENTS, product_of
from on_device.timing import Budget, in_turn

ROUNDS = 10


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
    if has_triton():
        from bisae.sae.kernels.triton_products import TritonProducts
        from bisae.sae.kernels.triton_selection import largest

        ways["selection"]["triton"] = partial(largest, pre, K)
        ours = TritonProducts(codes)
        ways["decode"]["triton"] = partial(ours.decode, directions)
        ways["gradient of the activations"]["triton"] = partial(ours.dots, x, directions)
        ways["gradient of a matrix"]["triton"] = partial(ours.sums, x, weights)
    for part, by in ways.items():
        if not budget.allows(1):
            return
        times = in_turn(by, 2 if budget.smoke else ROUNDS)
        for way, found in times.items():
            yield {**shape._asdict(), "k": K, "part": part, "way": way, "seconds": median(found)}
