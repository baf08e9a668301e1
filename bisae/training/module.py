"""Training: all members of a job on one stream of activations, as a LightningModule."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn

from bisae.activations.feed import ActivationBatch
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.runtime.errors import TrainingFailed
from bisae.runtime.threads import follow_idle_cores
from bisae.sae import SparseAutoencoder
from bisae.sae.architectures.candidate_topk import Candidates, CandidateTopK
from bisae.sae.objective import Take
from bisae.training.blocked_adam import BlockedAdam
from bisae.training.dead import FiringClock
from bisae.training.job import Member

Log = Callable[[Member, Mapping[str, float], int], None]


class SAETraining(LightningModule):
    """One optimizer with a parameter group a member; members share batches and nothing else.

    A member's numbers are those of the same cell trained alone. A member whose loss is no longer finite is left out
    from then on and named in `failed`; the others go on.
    """

    def __init__(
        self,
        members: Sequence[Member],
        saes: Sequence[SparseAutoencoder],
        languages: tuple[str, ...],
        optimizer: Callable[..., torch.optim.Optimizer],
        warmup: int,
        first_batch: Callable[[], ActivationBatch],
        shards_of: Callable[[Tensor], list[int]],
        tokens_per_step: int,
        log_every: int,
        log: Log,
    ) -> None:
        """`first_batch`: what b_pre starts from; `shards_of`: the cache's shards some rows lie in, for messages.

        `tokens_per_step`: of all ranks together; `log_every`: steps between two calls of `log`.
        """
        super().__init__()
        self.members, self.saes, self.languages = list(members), list(saes), languages
        self.clocks = [
            FiringClock(languages, s.latents, m.settings["dead_after"]) for m, s in zip(members, saes, strict=True)
        ]
        self.measures = [ReconstructionMetrics(languages, s.d_model, s.latents) for s in saes]
        self.checks = [ReconstructionMetrics(languages, s.d_model, s.latents) for s in saes]
        # What Lightning moves to the device and saves; the lists above are the same objects with their types.
        self.parts = nn.ModuleList([*self.saes, *self.clocks, *self.measures, *self.checks])
        self.optimizer, self.warmup, self.first_batch, self.shards_of = optimizer, warmup, first_batch, shards_of
        self.tokens_per_step, self.log_every, self.log_cell = tokens_per_step, log_every, log
        self.failed: dict[int, str] = {}
        self.validated: dict[int, dict[str, float]] = {}
        self.take: Take | None = None  # of an optimizer that forms gradients itself
        self.rates: list[float] = []  # tokens/s of this process, a value a `log`
        self._logged = 0, time.monotonic()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": list(sae.parameters()), "lr": member.lr}
            for member, sae in zip(self.members, self.saes, strict=True)
        ]
        optimizer = self.optimizer(groups)
        if isinstance(optimizer, BlockedAdam):
            self.take = optimizer.take
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        if self.trainer.global_rank > 0:  # a save holds the sums of all ranks, for rank 0
            for measure in self.measures:
                measure.forget()
        if self.trainer.global_step == 0:
            batch = self.first_batch().to(self.device)
            for member, sae in zip(self.members, self.saes, strict=True):
                x = sae.normalize(batch.activations[member.layer])[0]
                sae.initialize_b_pre(self._global_batch(x))
                if isinstance(sae, CandidateTopK):
                    sae.choose_encoder(x, self._average)

    def _healthy(self, batch: ActivationBatch) -> Iterator[tuple[int, SparseAutoencoder, Tensor, Tensor]]:
        """(index, SAE, x, norm) of each member still training; unit norms are made once a layer."""
        inputs: dict[int, tuple[Tensor, Tensor]] = {}
        for index, (member, sae) in enumerate(zip(self.members, self.saes, strict=True)):
            if index not in self.failed:
                if type(sae).normalize is not SparseAutoencoder.normalize:  # perhaps by settings of its own
                    yield index, sae, *sae.normalize(batch.activations[member.layer])
                    continue
                if member.layer not in inputs:
                    inputs[member.layer] = sae.normalize(batch.activations[member.layer])
                yield index, sae, *inputs[member.layer]

    def training_step(self, batch: ActivationBatch, step: int) -> Tensor:
        losses, fired = {}, {}
        for index, sae, x, norm in self._healthy(batch):
            dead = self.clocks[index].dead if sae.aux_k else None
            losses[index], codes, x_hat = sae.objective(x, dead, self._average, self.take)
            fired[index] = self.clocks[index].fired(codes, batch.language)
            self.measures[index].update(x, norm, x_hat, codes, batch.language)
        if not losses:
            raise self._none_left()
        finite = torch.isfinite(torch.stack(list(losses.values())).detach())
        spoken = torch.bincount(batch.language.long(), minlength=len(self.languages))
        if self.trainer.world_size > 1:
            finite, spoken = self._over_ranks(finite, spoken, fired)
        for index, healthy in zip(list(losses), finite.tolist(), strict=True):
            if healthy:
                self.clocks[index].advance(fired[index], spoken)
            else:
                self._fail(index, batch)
                del losses[index]
        if not losses:
            raise self._none_left()
        return torch.stack(list(losses.values())).sum() + self._nothing()

    def _none_left(self) -> TrainingFailed:
        return TrainingFailed("\n".join(["no SAE of the job is left:", *self.failed.values()]))

    def _global_batch(self, x: Tensor) -> Tensor:
        """The rows of all ranks, in the order of the batch."""
        parts = [torch.empty_like(x) for _ in range(self.trainer.world_size)]
        if len(parts) == 1:
            return x
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def _average(self, value: Tensor) -> Tensor:
        """The mean over ranks."""
        if self.trainer.world_size == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.trainer.world_size

    def _over_ranks(self, finite: Tensor, spoken: Tensor, fired: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """`finite` and `spoken` of the global batch, and `fired` updated to it: one message a step."""
        parts = [~finite, spoken, *fired.values()]
        message = torch.cat([part.flatten().int() for part in parts])
        distributed.all_reduce(message)
        broken, spoken, *fires = message.split([part.numel() for part in parts])
        for (index, own), of_all in zip(fired.items(), fires, strict=True):
            fired[index] = of_all.view_as(own) > 0
        return broken == 0, spoken.long()

    def _nothing(self) -> Tensor | float:
        """Under DDP every parameter needs a gradient in every step: 0 for those of failed members."""
        if self.trainer.world_size == 1:
            return 0.0
        failed = [p for index in self.failed for p in self.saes[index].parameters() if p.requires_grad]
        return sum((parameter * 0).nansum() for parameter in failed)  # 0 also where they are NaN

    def _fail(self, index: int, batch: ActivationBatch) -> None:
        member = self.members[index]
        broken = ~torch.isfinite(batch.activations[member.layer]).all(1)
        found: list[Any] = [
            (bool(broken.any()), self.shards_of((batch.rows[broken] if broken.any() else batch.rows).cpu()))
        ]
        if self.trainer.world_size > 1:
            found = found * self.trainer.world_size
            distributed.all_gather_object(found, found[0])
        bad = [shards for is_bad, shards in found if is_bad]
        cause = "non-finite activations in" if bad else "loss is not finite (is sae.lr too high?) on rows of"
        shards = sorted({shard for part in bad or [part for _, part in found] for shard in part})
        self.failed[index] = (
            f"{member.cell.name}: {cause} shards {shards} of layer {member.layer} at step {self.trainer.global_step}"
        )

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        super().optimizer_step(*arguments, **keywords)
        for index, sae in enumerate(self.saes):
            if index not in self.failed and not self.take:
                sae.normalize_decoder()

    def on_train_epoch_start(self) -> None:
        self._logged = self.trainer.global_step, time.monotonic()  # the time between epochs is not training

    def report(self) -> None:
        """Log the `train/` metrics of the steps since the last report."""
        done, now = self.trainer.global_step, time.monotonic()
        rate = (done - self._logged[0]) * self.tokens_per_step / (now - self._logged[1])
        self._logged = done, now
        self.rates.append(rate)
        fvu = []
        for index, member in enumerate(self.members):
            if index not in self.failed:
                values = self.measures[index].compute() | self.clocks[index].shares()
                if isinstance(sae := self.saes[index], CandidateTopK):
                    values["float32_tokens"] = sae.encoder.share()
                self.measures[index].reset()
                named = {f"train/{name}": value for name, value in values.items()} | {"train/tokens_per_s": rate}
                self.log_cell(member, named, done * self.tokens_per_step)
                fvu.append(values["fvu"])
        self.log_dict({"fvu": sum(fvu) / len(fvu), "tokens/s": rate}, prog_bar=True)

    def validation_step(self, batch: ActivationBatch, step: int) -> None:
        for index, sae, x, norm in self._healthy(batch):
            codes = sae.encode_unit(x)
            self.checks[index].update(x, norm, sae.decode(codes), codes, batch.language)

    def on_validation_epoch_end(self) -> None:
        for index, member in enumerate(self.members):
            if index not in self.failed:
                self.validated[index] = self.checks[index].compute()
                self.checks[index].reset()
                if not math.isfinite(self.validated[index]["fvu"]):
                    self.failed[index] = f"{member.cell.name}: val/fvu is not finite at the end of an epoch"
                    continue
                named = {f"val/{name}": value for name, value in self.validated[index].items()}
                self.log_cell(member, named, self.trainer.global_step * self.tokens_per_step)

    def gather(self) -> None:
        """Before a save, which is rank 0's: the sums of all ranks."""
        for measure in self.measures:
            measure.gather()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["failed"] = self.failed
        checkpoint["candidates"] = {index: encoder.per_token for index, encoder in self._candidates()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.failed = checkpoint["failed"]
        for index, encoder in self._candidates():
            encoder.per_token = checkpoint["candidates"][index]

    def _candidates(self) -> Iterator[tuple[int, Candidates]]:
        return ((index, sae.encoder) for index, sae in enumerate(self.saes) if isinstance(sae, CandidateTopK))


class Reports(Callback):
    """Calls `SAETraining.report`; before `Saves` in the list, so that a save never holds what is about to be logged."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        follow_idle_cores()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if isinstance(module, SAETraining) and trainer.global_step % module.log_every == 0:
            module.report()
            follow_idle_cores()
