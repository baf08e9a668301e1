"""Batches as a pure function of the step: what makes a resumed run equal an uninterrupted one.

The loader keeps no state. A killed run's checkpoint says how many batches of the epoch are done, and the sampler starts
there; Lightning's own shuffling would draw a new order and repeat data.
"""

from collections.abc import Callable, Iterator
from typing import Any

from lightning import LightningDataModule, LightningModule
from torch.utils.data import Sampler


class StepSampler(Sampler[list[Any]]):
    """Yields `batch(epoch, step)` for each step of the current epoch that is not done yet.

    `owner` knows the Trainer.
    """

    def __init__(
        self, owner: LightningModule | LightningDataModule, steps: int, batch: Callable[[int, int], list[Any]]
    ) -> None:
        self.owner, self.steps, self.batch = owner, steps, batch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[Any]]:
        trainer = self.owner.trainer
        assert trainer is not None
        # Read once, before the first batch: the loader may run ahead of the training step.
        epoch, done = trainer.current_epoch, trainer.fit_loop.epoch_loop.batch_progress.current.ready
        overfits = getattr(trainer, "overfit_batches", 0)  # a trial on the same batches again and again
        return (self.batch(0 if overfits else epoch, step) for step in range(done, self.steps))
