"""Greedy generation by an LM, and the loss of given texts."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from bisae.lm import losses
from bisae.lm.batches import batches

# Of a generation_config.json: what greedy search up to `max_new_tokens` has no use for.
WITHOUT_EFFECT = {
    "_from_model_config",
    "bos_token_id",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "num_beams",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}


def forget_folder(lm: Any) -> None:
    """Drop the generation settings that came with an LM's folder.

    `generate` would use them for all settings that its config leaves open; a folder may even have its own `generate`.
    """
    lm.generation_config = GenerationConfig()
    vars(lm).pop("generate", None)


def greedy(tokenizer: Any, max_new_tokens: int, stop: str | None = None) -> GenerationConfig:
    """Return settings for greedy generation with `lm.generate`.

    It ends at the tokenizer's end-of-sequence token, after `max_new_tokens`, or at the text `stop`; for `stop`,
    `lm.generate` needs the argument `tokenizer` too.
    """
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad,
        stop_strings=None if stop is None else [stop],
    )


def written(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of generated tokens up to the end-of-sequence token, without BOS and padding.

    No other token is dropped: bytes and markup are text even if a tokenizer calls them special.
    """
    ids = list(ids)
    if tokenizer.eos_token_id in ids:
        ids = ids[: ids.index(tokenizer.eos_token_id)]
    dropped = (tokenizer.bos_token_id, tokenizer.pad_token_id)
    kept = [token for token in ids if token not in dropped]
    text: str = tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def generation_identity(folders: Iterable[Path], tokenizer: Any) -> Mapping[str, Any]:
    """Return the generation settings that identify answers, besides LM and prompts.

    They are empty if the LMs' own files ask for the same greedy generation: answers of older versions of bisae, which
    followed those files, then stay valid.
    """
    ends = tokenizer.eos_token_id
    dropped = {tokenizer.bos_token_id, ends, tokenizer.pad_token_id}
    same = set(tokenizer.all_special_ids) <= dropped | {tokenizer.unk_token_id}
    same &= not getattr(tokenizer, "clean_up_tokenization_spaces", False)
    if same and all(_is_greedy(folder, ends) for folder in folders):
        return {}
    return {"generation": {"do_sample": False, "eos": ends, "dropped": sorted(dropped - {None})}}


def _is_greedy(folder: Path, ends: int | None) -> bool:
    try:
        try:
            config = GenerationConfig.from_pretrained(folder)
        except OSError:  # none, or one that cannot be read: older LMs say it in their config
            config = GenerationConfig.from_pretrained(folder, config_file_name="config.json", _from_model_config=True)
    except (OSError, TypeError, ValueError):
        return False
    eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return {*config.to_diff_dict()} <= WITHOUT_EFFECT and eos == [ends]


@runtime_checkable
class TranslatingLM(Protocol):
    """Interface of an LM that answers prompts. Texts are token ids, BOS included."""

    def generate(self, prompts: Sequence[Sequence[int]], stop: str | None, max_new_tokens: int) -> list[str]:
        """Return the LM's greedy continuation of each prompt.

        It ends at the end-of-sequence token, after `max_new_tokens`, or at `stop`; some text may follow `stop`.
        """
        ...

    def token_losses(
        self, texts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> list[Float64[np.ndarray, " token"]]:
        """Return the nats of every token of each text from place `starts`, 1 or more, on."""
        ...


@dataclass(frozen=True)
class CausalLM:
    """A transformers LM, plain or within `bisae.edits.patched_lm.patched`; it reads `batch` texts at a time.

    The LM loses its own generation settings (`forget_folder`).
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
            generated = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                # A state-space LM begins anew at every token: its states would not tell a donor how far it has read.
                use_cache=can_cache(self.model),
                tokenizer=self.tokenizer,
            )
            for number, row in zip(numbers, generated[:, ids.shape[1] :].tolist(), strict=True):
                answers[number] = written(self.tokenizer, row)
        return answers

    def token_losses(
        self, texts: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> list[Float64[np.ndarray, " token"]]:
        return losses.token_losses(self.model, texts, self.batch, starts)


def can_cache(model: PreTrainedModel) -> bool:
    """True if an LM caches keys and values of earlier tokens; a state-space LM has states of another kind."""
    return "past_key_values" in inspect.signature(model.forward).parameters
