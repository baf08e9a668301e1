"""Encoding for an analysis: codes of many tokens on the device and back, and what of that is the product."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from work import K, Shape, work

from on_device.about import DEVICE
from on_device.backends import Training, backends
from on_device.steps_stage import LATENTS, product_of
from on_device.timing import Budget, in_turn, ratio


def analysis(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a backend: codes, and the largest activation and number of firings of each latent."""
    shape = Shape(64, 1024, 256) if budget.smoke else Shape(2048, LATENTS, 32768)
    directions, batches = work(shape, 0, DEVICE.type)
    for backend in backends():
        if not budget.allows(3):
            return
        sae = Training(backend, directions, K).sae

        @torch.no_grad()
        def codes(sae: Any = sae, backend: Any = backend) -> None:
            with backend.context():
                found = sae.encode_unit(batches[0])
            largest = found.values.new_zeros(found.latents)
            largest.scatter_reduce_(0, found.indices.long(), found.values, "amax")
            firings = torch.bincount(found.indices, minlength=found.latents)
            for tensor in (found.values, found.indices, largest, firings):
                tensor.cpu()

        times = in_turn({"codes": codes, "product": product_of(directions, batches[0])}, 2 if budget.smoke else 5)
        yield {
            **shape._asdict(),
            "k": K,
            "backend": backend.name,
            "precision": backend.precision,
            "codes_of_product": ratio(times, "codes", "product"),
            "tokens_per_second": shape.batch / median(times["codes"]),
        }
