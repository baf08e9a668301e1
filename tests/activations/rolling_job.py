"""Jobs that read rolling activations of the fake source, and what they have on disk."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from bisae.activations.feed import Feed
from bisae.activations.order import ReadingOrder
from bisae.activations.rolling import RollingActivations, WindowRows
from bisae.activations.store import RowWindow
from bisae.runtime.ranks import ALONE, Part
from tests.activations.fake_source import FakeSource

ORDER = ReadingOrder(seed=3, tokens=190, batch=12, block=7, pool_batches=2, window_pools=2)  # 15 steps, 4 windows
STEPS = 4  # a window


def on_disk(folder: Path) -> list[int]:
    return sorted({int(file.stem) for file in folder.rglob("*.bin")})


@contextmanager
def reading(
    folder: Path,
    source: FakeSource | None = None,
    layers: Sequence[int] = (2, 4),
    part: Part = ALONE,
    tokens: int = 190,
) -> Iterator[RollingActivations]:
    """Closed also where a test fails, or its thread would outlive it."""
    activations = RollingActivations(source or FakeSource(), folder, layers, tokens, part)
    try:
        yield activations
    finally:
        activations.close(finished=False)


def window(activations: RollingActivations, number: int, following: int | None) -> WindowRows:
    after = None if following is None else RowWindow(*ORDER.window(following), lambda: np.arange(0))
    return activations.window(*ORDER.window(number), None, after)


def is_window(rows: WindowRows, number: int) -> bool:
    start, stop = ORDER.window(number)
    return torch.equal(rows.read(2, start, stop), FakeSource().all_values(2)[start:stop])


def killed(folder: Path, step: int) -> None:
    """A job that ends after `step`, once its thread has written the window that follows."""
    with reading(folder) as activations:
        Feed(activations, [2, 4], ORDER, 1).batch(0, step)
        if activations._ahead is not None:
            activations._ahead[2].result()
