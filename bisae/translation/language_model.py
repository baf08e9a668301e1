"""What translation asks of an LM, and a transformers LM that answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.utils.rnn import pad_sequence

from bisae.intervention import cross_entropy
from bisae.intervention.batches import batches
from bisae.intervention.causal_lm import can_cache
from bisae.lm.generation import forget_folder, greedy, written


@runtime_checkable
class TranslatingLM(Protocol):
    """Texts are token ids, BOS included."""

    def generate(self, prompts: Sequence[Sequence[int]], stop: str | None, max_new_tokens: int) -> list[str]:
        """What the LM writes after each prompt, greedily, up to its end-of-sequence token, at most `max_new_tokens`, or
        to `stop`, if there is one; there may be more behind `stop`."""
        ...

    def token_losses(self, texts: Sequence[Sequence[int]]) -> list[Float64[np.ndarray, " token"]]:
        """Nats of every token but the first of each text."""
        ...


@dataclass(frozen=True)
class CausalLM:
    """A transformers LM, plain or within `bisae.intervention.patched_lm.patched`; `batch` texts are read at a time.

    The LM's own generation config is taken from it: `bisae.lm.generation` says how it writes.
    """

    model: Any
    tokenizer: Any
    batch: int

    def __post_init__(self) -> None:
        forget_folder(self.model)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], stop: str | None, max_new_tokens: int) -> list[str]:
        answers, config = [""] * len(prompts), greedy(self.tokenizer, max_new_tokens, stop)
        for numbers, _, _ in batches(prompts, self.batch, self.model.device):
            rows = [torch.tensor(prompts[number], device=self.model.device) for number in numbers]
            # On the left, so that all go on at the same place.
            ids, mask = (
                pad_sequence(parts, batch_first=True, padding_side="left")
                for parts in (rows, [torch.ones_like(row) for row in rows])
            )
            made = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                # A state-space LM begins anew at every token: its states would not tell a donor how far it has read.
                use_cache=can_cache(self.model),
                tokenizer=self.tokenizer,
            )
            for number, row in zip(numbers, made[:, ids.shape[1] :].tolist(), strict=True):
                answers[number] = written(self.tokenizer, row)
        return answers

    def token_losses(self, texts: Sequence[Sequence[int]]) -> list[Float64[np.ndarray, " token"]]:
        return cross_entropy.token_losses(self.model, texts, self.batch)
