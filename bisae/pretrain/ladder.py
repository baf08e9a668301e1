"""Train a ladder: one small LM, from scratch, saved at chosen steps as ordinary Hugging Face folders."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bisae.lm.losses import token_loss
from bisae.runtime.atomic import atomic_folder, write_json
from bisae.training.steps import StepSampler


@dataclass(frozen=True)
class LMSize:
    """The size of a Llama: width, decoder blocks, attention heads, width of the MLPs.

    `tied`: the output matrix is the input embeddings. Tied embeddings of words that translate each other become alike
    as soon as the LM predicts them in the same places, so that what the languages share begins at layer 0.
    """

    d_model: int
    layers: int
    heads: int
    ffn: int
    tied: bool = True


@dataclass(frozen=True)
class PretrainSchedule:
    """AdamW with a linear warm-up of `warmup` steps, then a cosine down to a tenth of the learning rate.

    A step takes `batch` rows of `context` tokens. Gradients are clipped to the global norm `clip`.
    """

    steps: int
    batch: int
    context: int
    learning_rate: float
    warmup: int
    weight_decay: float
    clip: float
    precision: Any  # as Lightning's Trainer takes it
    attention: str = "sdpa"  # as transformers names its implementations

    @property
    def rows(self) -> int:
        return self.steps * self.batch


def tiny_llama(size: LMSize, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A randomly initialised LM; the same seed gives the same LM."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.d_model,
        intermediate_size=size.ffn,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=size.tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


class ChunkedLoss(torch.autograd.Function):
    """The mean cross-entropy of the logits `hidden @ weight.T`, holding only one chunk of the logits at a time.

    The forward pass also computes the gradients, while a chunk's logits are in memory.
    """

    CHUNK = 512

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "token d_model"],
        weight: Float[Tensor, "vocab d_model"],
        ids: Int[Tensor, " token"],
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        device = hidden.device.type
        if torch.is_autocast_enabled(device):  # cast once, not for every chunk
            hidden, weight = (t.to(torch.get_autocast_dtype(device)) for t in (hidden, weight))
        for start in range(0, len(hidden), ChunkedLoss.CHUNK):
            part = slice(start, start + ChunkedLoss.CHUNK)
            logits = (hidden[part] @ weight.T).float()
            target = ids[part, None]
            normaliser = logits.logsumexp(1, keepdim=True)
            total += (normaliser - logits.gather(1, target)).sum()
            gradient = logits.sub_(normaliser).exp_()
            gradient.scatter_add_(1, target, gradient.new_full((len(target), 1), -1.0))
            gradient = gradient.div_(len(hidden)).to(weight.dtype)
            d_hidden[part] = gradient @ weight
            d_weight += gradient.T @ hidden[part]
        ctx.save_for_backward(d_hidden, d_weight)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return scales[0] * d_hidden, scales[0] * d_weight, None


class LadderModule(LightningModule):
    """Next-token training of one LM."""

    def __init__(self, lm: LlamaForCausalLM, schedule: PretrainSchedule) -> None:
        super().__init__()
        lm.set_attn_implementation(schedule.attention)
        self.lm, self.schedule = lm, schedule

    def training_step(self, rows: Int[Tensor, "row position"], index: int) -> Tensor:
        hidden = self.lm.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
        loss: Tensor = ChunkedLoss.apply(hidden.flatten(0, 1), self.lm.lm_head.weight, rows[:, 1:].flatten())
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # The Trainer's own clipping refuses fused optimizers in mixed precision.
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), self.schedule.clip)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        plan = self.schedule
        groups = [
            {"params": [p for p in self.lm.parameters() if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": [p for p in self.lm.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.95), fused=True)

        def factor(step: int) -> float:
            if step < plan.warmup:
                return (step + 1) / plan.warmup
            progress = (step - plan.warmup) / max(1, plan.steps - plan.warmup)
            return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass
class Rungs(Callback):
    """Saves the LM at each of `steps` (a rung) as `<folder>/step<7 digits>/`, with `recipe.json` beside the weights.

    `<folder>/held_out.json` has, for each rung and for every `watch`-th step (0: none), the epochs done and the
    perplexity on held-out text by language: an LM that learns its text by heart gets worse there.

    `validation`: token ids of documents by language. `epochs`: how often the whole run reads the text.
    """

    folder: Path
    steps: Sequence[int]
    tokenizer: PreTrainedTokenizerFast
    validation: Mapping[str, Sequence[Sequence[int]]]
    epochs: float
    watch: int
    recipe: Mapping[str, object]

    def keep(self, module: LadderModule, step: int) -> None:
        """Save the LM if `step` is a rung and not saved yet. A resumed run reaches the same weights again."""
        path, plan = self.folder / f"step{step:07d}", module.schedule
        rung = step in self.steps and not path.exists()
        if not rung and not (self.watch and step % self.watch == 0):
            return
        perplexity = {language: token_loss(module.lm, rows).perplexity for language, rows in self.validation.items()}
        held_out = self.folder / "held_out.json"
        known = json.loads(held_out.read_text()) if held_out.exists() else {}
        now = {"epochs": round(self.epochs * step / plan.steps, 3), "perplexity": perplexity}
        write_json(held_out, known | {str(step): now})
        if not rung:
            return
        with atomic_folder(path) as temporary:
            module.lm.save_pretrained(temporary)
            self.tokenizer.save_pretrained(str(temporary))
            about = {
                "step": step,
                "tokens_seen": step * plan.batch * plan.context,
                "perplexity": perplexity,
                "recipe": self.recipe,
            }
            write_json(temporary / "recipe.json", about)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, LadderModule)
        self.keep(module, trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        assert isinstance(module, LadderModule)
        self.keep(module, trainer.global_step)


class _Rows(Dataset[Tensor]):
    def __init__(self, rows: npt.NDArray[Any]) -> None:
        self.rows = torch.from_numpy(rows)

    def __getitems__(self, indices: list[int]) -> Tensor:
        return self.rows[indices].long()


def loader(module: LadderModule, rows: npt.NDArray[Any]) -> DataLoader[Tensor]:
    """Loads `rows` [row, context + 1] in order, a batch of consecutive rows for each step not done yet."""
    size = module.schedule.batch
    sampler = StepSampler(
        module, module.schedule.steps, lambda epoch, step: list(range(step * size, (step + 1) * size))
    )
    return DataLoader(_Rows(rows), batch_sampler=sampler, collate_fn=lambda batch: batch)
