"""Training: all members of a job on one stream of activations, as a LightningModule."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from bisae.activations.feed import ActivationBatch
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.runtime.errors import TrainingFailed
from bisae.runtime.ranks import ALONE, Part
from bisae.runtime.threads import follow_idle_cores
from bisae.sae import SparseAutoencoder
from bisae.sae.objective import Take
from bisae.training.baselines import SOFT, freeze, hold_near, keeping
from bisae.training.data import ActivationData
from bisae.training.dead import FiringClock
from bisae.training.job import Member
from bisae.training.schedule import Schedule
from bisae.training.shared_log import Log, SharedLog

NONE_LEFT = "no SAE of the job is left:"


class SAETraining(LightningModule):
    """One optimizer with a parameter group a member; members share batches and nothing else.

    A member's numbers are those of the same cell trained alone. A member whose loss is no longer finite is left out
    from then on and named in `failed`; the others go on. Its batches are those of an `ActivationData`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        saes: Sequence[SparseAutoencoder],
        languages: tuple[str, ...],
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Schedule,
        log: Log,
        part: Part = ALONE,
    ) -> None:
        """All members in one module.

        Args:
            members: layer, learning rate and cell of each SAE.
            saes: the SAEs of `members`, in their order.
            languages: of the corpus, in the order of its numbers for them.
            optimizer: makes one of parameter groups with their `lr`.
            schedule: makes the scheduler of their rates.
            log: is told each member's metrics.
            part: this process among those that each train members of their own, all on the same batches. Else the ranks
                of the Trainer share each batch.
        """
        super().__init__()
        self.members, self.saes, self.languages = list(members), list(saes), languages
        self.clocks = [
            FiringClock(languages, s.latents, m.settings["dead_after"]) for m, s in zip(members, saes, strict=True)
        ]
        self.apart = part.world > 1
        self.measures = [ReconstructionMetrics(languages, s.d_model, s.latents, not self.apart) for s in saes]
        self.checks = [ReconstructionMetrics(languages, s.d_model, s.latents, not self.apart) for s in saes]
        # What Lightning moves to the device and saves; the lists above are the same objects with their types.
        self.parts = nn.ModuleList([*self.saes, *self.clocks, *self.measures, *self.checks])
        self.baselines = [member.settings.get("baseline") for member in members]
        self.draws = nn.Module()  # of decoders that may move a little; a resumed job draws them again
        for index, (sae, baseline) in enumerate(zip(self.saes, self.baselines, strict=True)):
            freeze(sae, baseline)
            if baseline == SOFT:
                self.draws.register_buffer(f"draw_{index}", sae.W_dec.detach().clone(), persistent=False)
        self.optimizer, self.schedule, self.log_run = optimizer, schedule, SharedLog(log, part)
        self.failed: dict[int, str] = {}
        self.validated: dict[int, dict[str, float]] = {}
        self.take: Take | None = None  # of an optimizer that forms gradients itself
        self.norm_of: Callable[[Sequence[Tensor]], Tensor] | None = None  # the same one's `gradient_norm`
        self.rates: list[float] = []  # tokens/s of this process, a value a `log`
        self.reporting = False  # whether a report follows this step
        self.last_step: dict[int, dict[str, Any]] = {}  # what a report says of each member's last step alone
        self._logged = 0, time.monotonic()

    @property
    def data(self) -> ActivationData:
        """Where the batches come from."""
        return cast(ActivationData, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def ranks(self) -> int:
        """Processes that share each batch."""
        return 1 if self.apart else self.trainer.world_size

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            {"params": list(sae.parameters()), "lr": member.lr}
            for member, sae in zip(self.members, self.saes, strict=True)
        ]
        optimizer = self.optimizer(groups)
        self.take, self.norm_of = (getattr(optimizer, name, None) for name in ("take", "gradient_norm"))
        scheduler = self.schedule(optimizer, self.data.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        if self.ranks > 1 and self.trainer.global_rank > 0:  # a save holds the sums of all ranks, for rank 0
            for measure in self.measures:
                measure.forget()
        if self.trainer.global_step == 0:
            batch = self.data.first_batch().to(self.device)
            for member, sae, baseline in zip(self.members, self.saes, self.baselines, strict=True):
                x = sae.normalize(batch.activations[member.layer])[0]
                if member.start is None:
                    sae.initialize_b_pre(self._global_batch(x))
                    sae.W_enc.data *= member.settings.get("encoder_norm", 1.0)
                    with keeping(sae, baseline):
                        sae.on_start(x, self._average)
                else:
                    state = deepcopy(sae.state_dict())
                    sae.on_start(x, self._average)
                    sae.load_state_dict(state)  # what a class makes of its first batch is for fresh weights

    def _healthy(self, batch: ActivationBatch) -> Iterator[tuple[int, SparseAutoencoder, Tensor, Tensor]]:
        """(index, SAE, x, norm) of each member still training; unit norms are made once a layer."""
        inputs: dict[int, tuple[Tensor, Tensor]] = {}
        for index, (member, sae) in enumerate(zip(self.members, self.saes, strict=True)):
            if index not in self.failed:
                if sae.has_own_normalize:  # perhaps by settings of its own
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
            if self.reporting:
                loss, error = losses[index].detach(), (x_hat - x).square().sum(1).mean()
                self.last_step[index] = {"loss": loss, "loss_reconstruction": error, "loss_penalty": loss - error}
            fired[index] = self.clocks[index].fired(codes, batch.language)
            self.measures[index].update(x, norm, x_hat, codes, batch.language)
        if not losses:
            return self._none_left()
        finite = torch.isfinite(torch.stack(list(losses.values())).detach())
        spoken = torch.bincount(batch.language.long(), minlength=len(self.languages))
        if self.ranks > 1:
            finite, spoken = self._over_ranks(finite, spoken, fired)
        for index, healthy in zip(list(losses), finite.tolist(), strict=True):
            if healthy:
                self.clocks[index].advance(fired[index], spoken)
            else:
                self._fail(index, batch)
                del losses[index]
        if not losses:
            return self._none_left()
        return torch.stack(list(losses.values())).sum() + self._nothing()

    def _none_left(self) -> Tensor:
        """The loss of no SAE; raises TrainingFailed unless other ranks train others."""
        if not self.apart:
            raise TrainingFailed("\n".join([NONE_LEFT, *self.failed.values()]))
        return torch.zeros((), device=self.device, requires_grad=True)

    def failed_anywhere(self) -> tuple[list[str], int]:
        """Why members failed, those of other ranks too, and how many are left; all ranks call this at the same time."""
        found = self.log_run.meet((len(self.members), list(self.failed.values())))
        why = [one for _, failed in found for one in failed]
        return why, sum(members for members, _ in found) - len(why)

    def _global_batch(self, x: Tensor) -> Tensor:
        """The rows of all ranks, in the order of the batch."""
        parts = [torch.empty_like(x) for _ in range(self.ranks)]
        if len(parts) == 1:
            return x
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def _average(self, value: Tensor) -> Tensor:
        """The mean over ranks."""
        if self.ranks == 1:
            return value
        total = value.clone()
        distributed.all_reduce(total)
        return total / self.ranks

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
        if self.ranks == 1:
            return 0.0
        failed = [p for index in self.failed for p in self.saes[index].parameters() if p.requires_grad]
        return sum((parameter * 0).nansum() for parameter in failed)  # 0 also where they are NaN

    def _fail(self, index: int, batch: ActivationBatch) -> None:
        member = self.members[index]
        broken = ~torch.isfinite(batch.activations[member.layer]).all(1)
        rows = batch.rows[broken] if broken.any() else batch.rows
        found: list[Any] = [(bool(broken.any()), batch.shards_of(rows.cpu().numpy()))]
        if self.ranks > 1:
            found = found * self.ranks
            distributed.all_gather_object(found, found[0])
        bad = [shards for is_bad, shards in found if is_bad]
        cause = "non-finite activations in" if bad else "loss is not finite (is sae.lr too high?) on rows of"
        shards = sorted({shard for part in bad or [part for _, part in found] for shard in part})
        self.failed[index] = (
            f"{member.cell.name}: {cause} shards {shards} of layer {member.layer} at step {self.trainer.global_step}"
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of each member by themselves; on several devices they are those of the whole batch."""
        clip: Callable[..., Any] = clip_grad_value_ if gradient_clip_algorithm == "value" else clip_grad_norm_
        for index, sae in enumerate(self.saes):
            if gradient_clip_val and index not in self.failed:
                clip(sae.parameters(), gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Of a step that is reported: each member's learning rate, and the norm of its gradient before any clipping.

        An optimizer with a `take` has no gradient as a whole, and its norm only if it has a `gradient_norm`.
        """
        for index, found in self.last_step.items() if self.reporting else ():
            found["lr"] = optimizer.param_groups[index]["lr"]
            weights = list(self.saes[index].parameters())
            if not self.take:
                found["gradient_norm"] = get_total_norm([weight.grad for weight in weights if weight.grad is not None])
            elif self.norm_of:
                found["gradient_norm"] = self.norm_of(weights)

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        super().optimizer_step(*arguments, **keywords)
        for index, sae in enumerate(self.saes):
            if index not in self.failed and not self.take and sae.W_dec.requires_grad:
                sae.normalize_decoder()
            if index not in self.failed and self.baselines[index] == SOFT:
                hold_near(sae.W_dec, getattr(self.draws, f"draw_{index}"))

    def on_train_epoch_start(self) -> None:
        self._logged = self.trainer.global_step, time.monotonic()  # the time between epochs is not training

    def report(self) -> None:
        """Log the `train/` metrics of the steps since the last report."""
        done, now = self.trainer.global_step, time.monotonic()
        rate = (done - self._logged[0]) * self.data.tokens_per_step / (now - self._logged[1])
        self._logged = done, now
        self.rates.append(rate)
        fvu = []
        for index, member in enumerate(self.members):
            if index not in self.failed:
                values = self.measures[index].compute() | self.clocks[index].shares()
                values |= self._last_step(index) | self.saes[index].extra_metrics()
                self.measures[index].reset()
                named = {f"train/{name}": value for name, value in values.items()} | {"train/tokens_per_s": rate}
                self.log_run(member.cell.run_id, named, done * self.data.tokens_per_step)
                fvu.append(values["fvu"])
        why, left = self.failed_anywhere()
        if not left:
            raise TrainingFailed("\n".join([NONE_LEFT, *why]))
        if fvu:
            self.log_dict({"fvu": sum(fvu) / len(fvu), "tokens/s": rate}, prog_bar=True)

    def _last_step(self, index: int) -> dict[str, float]:
        """The loss of the last step and its parts, over all ranks, its learning rate and gradient's norm.

        The penalty is all but the reconstruction: L1, the auxiliary loss, a class's own; left out where it is 0.
        """
        found = self.last_step.pop(index, {})
        found |= {name: self._average(value) for name, value in found.items() if name.startswith("loss")}
        return {name: float(value) for name, value in found.items() if name != "loss_penalty" or value != 0}

    def validation_step(self, batch: ActivationBatch, step: int) -> None:
        for index, sae, x, norm in self._healthy(batch):
            codes = sae.encode_unit(x)
            self.checks[index].update(x, norm, sae.decode(codes), codes, batch.language)

    def on_validation_epoch_end(self) -> None:
        self.validated = self.checked()
        for index, values in self.validated.items():
            if not math.isfinite(values["fvu"]):
                self.failed[index] = f"{self.members[index].cell.name}: val/fvu is not finite at the end of an epoch"
            elif len(self.members) == 1 and not self.apart:  # what callbacks look at
                self.log_dict({f"val/{name}": value for name, value in values.items()}, logger=False, sync_dist=True)

    def checked(self) -> dict[int, dict[str, float]]:
        """The metrics of the held-out batches since the last call, by member still training; logged if finite."""
        found = {}
        for index, member in enumerate(self.members):
            if index not in self.failed:
                found[index] = self.checks[index].compute()
                self.checks[index].reset()
                if math.isfinite(found[index]["fvu"]):
                    named = {f"val/{name}": value for name, value in found[index].items()}
                    self.log_run(member.cell.run_id, named, self.trainer.global_step * self.data.tokens_per_step)
        self.log_run.meet()
        return found

    def gather(self) -> None:
        """Before a save: rank 0 has the sums of all ranks, and has logged what they know."""
        self.log_run.meet()
        for measure in self.measures:
            measure.gather()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["members"] = [member.cell.name for member in self.members]  # see bisae.training.split_saves
        checkpoint["processes"] = self.trainer.world_size if self.apart else 1
        checkpoint["failed"] = self.failed
        checkpoint["extra_states"] = {index: sae.extra_state() for index, sae in enumerate(self.saes)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.failed = checkpoint["failed"]
        states = checkpoint.get("extra_states") or _older_extra_states(checkpoint)
        for index, state in states.items():
            self.saes[index].load_extra_state(state)


def _older_extra_states(checkpoint: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Of a save made before SAEs had `extra_state`: only those with candidates had one."""
    return {index: {"candidates": candidates} for index, candidates in checkpoint["candidates"].items()}


class Reports(Callback):
    """Calls `report` every `every` steps; before `Saves` in the list: a save never holds what is about to be logged."""

    def __init__(self, report: Callable[[], None], every: int) -> None:
        self.report, self.every = report, every

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        follow_idle_cores()

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        cast(SAETraining, module).reporting = (trainer.global_step + 1) % self.every == 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        if trainer.global_step % self.every == 0:
            self.report()
            follow_idle_cores()
