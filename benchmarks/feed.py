"""Reading the cache shuffled, beside a training step of the same batch: python benchmarks/feed.py [--json FILE].

The feed gives all batches of `--pools` pools, so that what it does once a pool counts in full, from a cache of random
activations in a temporary folder, whose files are in the page cache. A step is the autograd form of sae_step.py, a
product its bare product, both on batches that are there already.
"""

import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import in_turn, options, ratio, show, write
from steps import autograd
from torch import Tensor
from work import SHAPES, K, Shape, work

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.reader import CachedActivations
from bisae.activations.store import TokenShard

SHARD = 2**16
SIZES = {"default": (Shape(128, 1024, 512), 16), "A": (SHAPES["A"], K), "B": (SHAPES["B"], K)}  # first: train.py's


class RandomSource:
    """Shards of random activations; a `bisae.activations.store.Source`."""

    depth = 1

    def __init__(self, d_model: int) -> None:
        self.d_model = d_model
        self.fingerprint = {"random": d_model}

    def tokens(self, shard: int) -> TokenShard:
        row = np.arange(SHARD)
        position = (row % 64).astype(np.int16)
        return TokenShard(
            row.astype(np.int32), (row // 64 % 2).astype(np.uint8), (row // 64).astype(np.int32), position
        )

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, Tensor]:
        generator = torch.Generator().manual_seed(shard)
        return {layer: torch.randn(SHARD, self.d_model, generator=generator).bfloat16() for layer in layers}

    def ended(self) -> str:
        return ""

    def remarks(self) -> list[str]:
        return []

    def forget(self, shard: int) -> None: ...

    def ready(self, layers: Sequence[int]) -> None: ...

    def release(self) -> None: ...


def reading(folder: Path, shape: Shape, pools: int) -> tuple[CachedActivations, ReadingOrder]:
    """A cache of as many pools in `folder`, and the order it is read in: as in conf/train.yaml."""
    pool_batches = 64
    order = ReadingOrder(0, pools * pool_batches * shape.batch, shape.batch, 16, pool_batches, window_pools=16)
    cache = ActivationCache(folder, disk_gib=40, evict=False, verify=False)
    return cache.prepare(RandomSource(shape.d_model), [1], order.tokens), order


def measure(name: str, pools: int, rounds: int) -> dict[str, Any]:
    """A row: seconds a batch, a step and a product, and their ratios."""
    shape, k = SIZES[name]
    directions, batches = work(shape, seed=0)
    product = torch.empty(shape.batch, shape.latents)
    step = autograd(directions.clone(), k)
    inputs = cycle(batches)
    with tempfile.TemporaryDirectory() as folder:
        rows, order = reading(Path(folder), shape, pools)
        feed = Feed(rows, [1], order, epochs=1 + rounds)
        epochs = iter(range(1 + rounds))

        def epoch() -> None:
            number = next(epochs)
            for batch in range(order.steps_per_epoch):
                feed.batch(number, batch)

        works = {
            "feed": epoch,
            "step": lambda: step(next(inputs)),
            "product": lambda: torch.mm(next(inputs), directions.T, out=product),
        }
        times = in_turn(works, rounds)
    a_batch = 1 / order.steps_per_epoch
    return {
        "name": name,
        **shape._asdict(),
        "k": k,
        "feed_seconds": min(times["feed"]) * a_batch,
        "feed_of_step": ratio(times, "feed", "step", a_batch),
        "feed_of_product": ratio(times, "feed", "product", a_batch),
        "step_of_product": ratio(times, "step", "product"),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--pools", type=int, default=2)
    given = parser.parse_args()
    found = []
    for name in ["default"] if given.smoke else given.shapes:
        found.append(measure(name, given.pools, given.rounds))
        show(found[-1])
        write(given.json, found)


if __name__ == "__main__":
    main()
