"""The LightningDataModule under Lightning's own Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer

from bisae.activations.cache import ActivationCache
from bisae.activations.feed import ActivationBatch
from bisae.activations.job_activations import JobActivations
from bisae.activations.order import ReadingOrder
from bisae.activations.store import Request
from bisae.runtime.errors import Refused
from bisae.runtime.library_warnings import silence
from bisae.runtime.ranks import ALONE, Part
from bisae.training.data import ActivationData
from bisae.training.saves import Saves
from tests.activations.fake_source import FakeSource

ORDER = ReadingOrder(seed=0, tokens=120, batch=12, block=4, pool_batches=2, window_pools=2)  # 10 steps an epoch
EVERY_STEP = [(epoch, step) for epoch in range(2) for step in range(10)]


def activations(folder: Path, part: Part = ALONE, order: ReadingOrder = ORDER) -> ActivationData:
    asked = Request(FakeSource(), FakeSource(checkpoint=20), [2, 4], order, 90, part)
    cache = ActivationCache(folder / "cache", disk_gib=1, evict=False, verify=True)
    opened = (cache.prepare(source, [2, 4], tokens) for source, tokens, _ in asked.texts)
    return ActivationData(JobActivations(asked, *opened), epochs=2)


class Recorder(LightningModule):
    """Trains nothing, and notes which rows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.rows: list[list[int]] = []
        self.held_out: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: ActivationBatch, step: int) -> torch.Tensor:
        self.rows.append(batch.rows.tolist())
        return self.weight.sum()

    def validation_step(self, batch: ActivationBatch, step: int) -> None:
        self.held_out += batch.rows.tolist()


def trainer(folder: Path, *callbacks: Callback, **more: Any) -> Trainer:
    """Two epochs on one process, with nothing that bisae does without."""
    silence()
    off = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler"),
        False,
    )
    callbacks = callbacks or (Saves(folder / "save.ckpt", every=5),)
    settings = {**off, "num_sanity_val_steps": 0, "default_root_dir": folder, **more}
    return Trainer(accelerator="cpu", max_epochs=2, callbacks=list(callbacks), **settings)


@pytest.mark.parametrize("ahead", [False, True])  # True: as on a GPU
def test_a_trainer_reads_every_batch_in_reading_order_and_the_held_out_rows_each_epoch(
    tmp_path: Path, ahead: bool
) -> None:
    module, data = Recorder(), activations(tmp_path)
    data.ahead = ahead
    trainer(tmp_path).fit(module, datamodule=data)
    assert module.rows == [ORDER.rows(*step).tolist() for step in EVERY_STEP]
    assert module.held_out == [*range(90), *range(90)]
    assert (data.steps, data.tokens_per_step) == (20, 12)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_trainer_that_was_stopped_reads_the_rest_and_the_save_holds_nothing_of_the_data(
    tmp_path: Path, ahead: bool
) -> None:
    data = activations(tmp_path)
    data.ahead = ahead  # and so a batch further than the training
    trainer(tmp_path, max_steps=13).fit(Recorder(), datamodule=data)
    save = tmp_path / "save.ckpt"
    assert torch.load(save, weights_only=True)["global_step"] == 11
    assert ActivationData.__qualname__ not in torch.load(save, weights_only=True)
    module, data = Recorder(), activations(tmp_path)
    data.ahead = ahead
    trainer(tmp_path).fit(module, datamodule=data, ckpt_path=save, weights_only=True)
    assert module.rows == [ORDER.rows(*step).tolist() for step in EVERY_STEP[11:]]


def test_ranks_share_each_batch_and_the_held_out_rows(tmp_path: Path) -> None:
    ranks = [activations(tmp_path, Part(rank, 3)) for rank in range(3)]
    first = [row for data in ranks for row in data.first_batch().rows.tolist()]
    assert first == ORDER.rows(0, 0).tolist()
    held_out = [row for data in ranks for batch in data.val_dataloader() for row in batch.rows.tolist()]
    assert sorted(held_out) == list(range(90))


def test_rows_are_traced_to_their_shards(tmp_path: Path) -> None:
    batch = activations(tmp_path).first_batch()
    assert batch.shards_of(np.array([0, 39, 73])) == [0, 2]  # shards of 40, 33, 50, ... tokens


def test_more_tokens_than_there_are_activations_are_refused(tmp_path: Path) -> None:
    asked = Request(FakeSource(), FakeSource(checkpoint=20), [2], ORDER, 90, ALONE)
    cache = ActivationCache(tmp_path, disk_gib=1, evict=False, verify=True)
    few = cache.prepare(FakeSource(), [2], 50)
    with pytest.raises(Refused, match="tokens=120: there are only 73 tokens"):
        ActivationData(JobActivations(asked, few, few), epochs=1)


def test_a_trial_that_overfits_reads_the_same_batches_in_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, overfit_batches=2).fit(module, datamodule=activations(tmp_path))
    assert module.rows == [ORDER.rows(0, step).tolist() for step in (0, 1, 0, 1)]
