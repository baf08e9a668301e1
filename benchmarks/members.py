"""Members of one job beside as many jobs of one member: python benchmarks/members.py [--json FILE].

A step is the whole of `SAETraining`, metrics and counts of dead latents included, with the feed, without Lightning's
loop. `together` is a step of a job with all members, `apart` one of each of as many jobs on the same cache and order.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from feed import SIZES, reading
from measuring import in_turn, options, ratio, show, write
from torch.nn.parallel import DistributedDataParallel

from bisae.activations.feed import Feed
from bisae.cells.cell import Cell
from bisae.runtime.library_warnings import silence
from bisae.runtime.ranks import ALONE, Part
from bisae.sae import TopK
from bisae.training.job import Member
from bisae.training.module import SAETraining
from bisae.training.schedule import constant, schedule_of

MEMBERS = 4


def job(count: int, name: str, feed: Feed, world: int = 1, part: Part = ALONE) -> Callable[[], None]:
    """A function that takes the next step of a job with `count` members.

    On `world` ranks they share batches, unless `part` says that each has members of its own.
    """
    silence()
    shape, k = SIZES[name]
    cell = Cell(Path(), "none", 0, 1, "topk", {})
    members = [Member(1, 1e-4, {"dead_after": 100_000}, cell) for _ in range(count)]
    saes = [TopK(shape.d_model, shape.latents, k, seed=seed) for seed in range(count)]
    module = SAETraining(
        members,
        saes,
        ("en", "ja"),
        partial(torch.optim.Adam, fused=True),
        schedule=schedule_of(constant, 100),
        log=lambda *_: None,
        part=part,
    )
    module.trainer = SimpleNamespace(world_size=world, global_step=0, datamodule=SimpleNamespace(steps=1))  # type: ignore[assignment]
    configured: Any = module.configure_optimizers()
    optimizer, steps = configured["optimizer"], iter(range(10**9))
    module.forward = forward = lambda batch: module.training_step(batch, 0)  # type: ignore[method-assign]
    if world > part.world:  # as in bisae/training/trainer.py
        forward = DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)
    for sae in saes:
        sae.initialize_b_pre(sae.normalize(feed.batch(0, 0).activations[1])[0])

    def step() -> None:
        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = forward(feed.batch(0, next(steps)))
            loss.backward()
            return loss

        module.optimizer_step(0, 0, optimizer, closure)

    return step


def measure(name: str, rounds: int) -> dict[str, Any]:
    """A row: seconds of a step together, and its ratio to the steps apart."""
    shape, k = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        rows, order = reading(Path(folder), shape, pools=1)

        def feed() -> Feed:
            return Feed(rows, [1], order, epochs=1)

        together = job(MEMBERS, name, feed())
        alone = [job(1, name, feed()) for _ in range(MEMBERS)]
        times = in_turn({"together": together, "apart": lambda: [step() for step in alone]}, rounds)
    seconds = {f"{work}_seconds": min(found) for work, found in times.items()}
    found = {"together_of_apart": ratio(times, "together", "apart")}
    return {"name": name, **shape._asdict(), "k": k, "members": MEMBERS, **seconds, **found}


def main() -> None:
    given = options(__doc__).parse_args()
    found = []
    for name in ["default"] if given.smoke else SIZES:
        found.append(measure(name, given.rounds))
        show(found[-1])
        write(given.json, found)


if __name__ == "__main__":
    main()
