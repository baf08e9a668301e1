"""A step of each backend, in units of the bf16 product of its encoder."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from steps import Step
from torch import Tensor
from work import K, Shape, work

from on_device.about import DEVICE
from on_device.backends import Training, backends
from on_device.timing import Budget, allocated, in_turn, peak, ratio, seconds

LATENTS = 32768
# (d_model, batch): the most telling first.
SHAPES = (
    (2048, 32768),
    (512, 32768),
    (2048, 8192),
    (512, 8192),
    (1024, 32768),
    (3072, 32768),
    (1024, 8192),
    (3072, 8192),
)
LEAST, MOST, SECONDS = 5, 20, 0.6  # rounds, and about how long they shall take together
FEW = 256  # tokens of a smoke run's batch, whose times mean nothing


def product_of(directions: Tensor, x: Tensor) -> Callable[[], Tensor]:
    """The encoder's product in bf16, into memory that it already has."""
    left, right = x.bfloat16(), directions.bfloat16()
    out = torch.empty(len(x), len(directions), dtype=torch.bfloat16, device=x.device)
    return lambda: torch.mm(left, right.T, out=out)


def timed(make: Callable[[Tensor], Step], directions: Tensor, batches: list[Tensor]) -> dict[str, Any]:
    """Seconds of a step and of the product, their ratio, and the memory of all that the step needs but its batch."""
    x, before = batches[0], allocated()
    step = make(directions.clone())
    most = peak(lambda: [step(x) for x in batches[:2]])
    took = max(1e-6, seconds(lambda: step(x)))
    product, number = product_of(directions, x), iter(range(10**9))
    works = {"product": product, "step": lambda: step(batches[next(number) % len(batches)])}
    times = in_turn(works, max(LEAST, min(MOST, round(SECONDS / took))) if len(x) > FEW else 2, warm=1)
    step_seconds, product_seconds = (sorted(times[name])[len(times[name]) // 2] for name in ("step", "product"))
    return {
        "ratio": ratio(times, "step", "product"),
        "step_seconds": step_seconds,
        "product_seconds": product_seconds,
        "tokens_per_second": len(x) / step_seconds,
        "peak_bytes": None if most is None else most - before,
        "rounds": len(times["step"]),
    }


def shapes(budget: Budget) -> list[Shape]:
    if budget.smoke:
        return [Shape(64, 1024, 256)]
    return [Shape(d_model, LATENTS, batch) for d_model, batch in SHAPES]


def steps(budget: Budget) -> Iterator[dict[str, Any]]:
    """A row a shape and backend."""
    for shape in shapes(budget):
        if not budget.allows(3):
            return
        directions, batches = work(shape, 0, DEVICE.type)
        for backend in backends():
            if not budget.allows(2):
                return
            about = {**shape._asdict(), "k": K, "backend": backend.name, "precision": backend.precision}
            try:
                yield {**about, **timed(lambda start: Training(backend, start, K).step, directions, batches)}  # noqa: B023
            except torch.OutOfMemoryError:
                yield {**about, "error": "out of memory"}
