"""The activations of a job as a LightningDataModule."""

from collections.abc import Iterator
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from bisae.activations.ahead import ahead
from bisae.activations.feed import ActivationBatch, Feed, HeldOutBatches, held_out_window
from bisae.activations.job_activations import JobActivations
from bisae.training.steps import StepSampler

LEAST_HELD_OUT = 4096  # held-out tokens a batch, at least: small batches would only cost time


class ActivationData(LightningDataModule):
    """Batches of activations: for training in reading order, held-out ones in order.

    It has no `prepare_data` or `setup`: what a store refuses is refused, and a cache is filled, by `open_activations`
    before Lightning starts the other ranks, which would not wait that long. It has no state either: a batch follows
    from epoch and step, and `StepSampler` asks the Trainer for these.
    """

    def __init__(self, streams: JobActivations, epochs: int) -> None:
        """The batches of one process.

        Args:
            streams: the opened activations; `streams.asked` says which layers, in which order, and this process's rows.
            epochs: how often the training tokens are read.

        Raises:
            Refused: `tokens`, if there are fewer activations than the order has.
        """
        super().__init__()
        self.streams, self.epochs = streams, epochs
        self.layers, self.order, self.part = streams.asked.kept, streams.asked.order, streams.asked.rows
        # Where the SAEs are on the CPU, the thread would only take time from the training.
        self.ahead = self.pinned = streams.asked.on_gpu
        self.feed = Feed(streams.training, self.layers, self.order, epochs, self.part, self.pinned)

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks together."""
        return self.order.batch

    @property
    def steps(self) -> int:
        """Optimizer steps of all epochs."""
        return self.epochs * self.order.steps_per_epoch

    @property
    def tokens_read(self) -> int:
        """By all steps until now, of all ranks together."""
        assert self.trainer is not None
        return self.trainer.global_step * self.tokens_per_step

    def train_dataloader(self) -> DataLoader[ActivationBatch]:
        """The batches of the current epoch that are not done yet."""
        steps = StepSampler(self, self.order.steps_per_epoch, lambda epoch, step: [(epoch, step)])
        return Loader(self, TrainingBatches(self.feed), batch_sampler=steps, collate_fn=whole)

    def val_dataloader(self) -> DataLoader[ActivationBatch]:
        """This rank's share of the held-out batches."""
        size = max(self.order.batch // self.part.world, LEAST_HELD_OUT)
        tokens, window = self.streams.asked.held_out_tokens, held_out_window(self.order.window_rows)
        batches = HeldOutBatches(self.streams.validation, self.layers, tokens, size, window, self.part, self.pinned)
        return Loader(self, batches, batch_size=None, collate_fn=whole)

    def first_batch(self) -> ActivationBatch:
        """This rank's part of the first batch of all, from which SAEs start."""
        return self.feed.batch(0, 0)

    def close(self, finished: bool) -> None:
        """Nothing more is read; with `finished` what was kept only for this job can go, else it helps to go on."""
        self.streams.close(finished)


class Loader(DataLoader[ActivationBatch]):
    """Makes batches, and copies them to the device, one ahead of the training if `data.ahead`."""

    def __init__(self, data: ActivationData, dataset: Dataset[ActivationBatch], **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.data = data

    def __iter__(self) -> Iterator[ActivationBatch]:  # type: ignore[override]
        batches, trainer = super().__iter__(), self.data.trainer
        return ahead(batches, trainer.strategy.root_device) if trainer and self.data.ahead else batches


class TrainingBatches(Dataset[ActivationBatch]):
    """Batches, or this rank's part of them, by (epoch, step)."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitems__(self, steps: list[tuple[int, int]]) -> ActivationBatch:
        (epoch, step), *_ = steps
        return self.feed.batch(epoch, step)


def whole(batch: Any) -> Any:
    """Collation that leaves a batch as it is."""
    return batch
