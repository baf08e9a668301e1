"""Snapshots: cells of an SAE on its way, after chosen numbers of tokens of its training."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from lightning import Callback, LightningModule, Trainer

from bisae.training.module import SAETraining

Write = Callable[[SAETraining, int, Mapping[int, Mapping[str, float]]], None]  # tokens, then metrics by member


class Snapshots(Callback):
    """Measures all members after the chosen numbers of tokens, and has them written.

    It stands before `Saves` in the list of callbacks: a save never holds a step whose snapshot is not written. The
    training goes on as if there were none.
    """

    def __init__(self, tokens: Sequence[int], write: Write) -> None:
        self.tokens, self.write = frozenset(tokens), write

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if trainer.global_step == 0:
            self._take(trainer, module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        self._take(trainer, module)

    def _take(self, trainer: Trainer, module: LightningModule) -> None:
        module = cast(SAETraining, module)
        tokens = trainer.global_step * module.data.tokens_per_step
        if tokens not in self.tokens:
            return
        module.eval()
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for number, batch in enumerate(module.data.val_dataloader()):
                module.validation_step(batch.to(module.device), number)
        module.train()
        metrics = module.checked()  # all ranks
        if trainer.is_global_zero or module.apart:
            finite = {index: values for index, values in metrics.items() if math.isfinite(values["fvu"])}
            self.write(module, tokens, finite)
