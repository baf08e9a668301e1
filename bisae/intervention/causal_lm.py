"""The two LMs of an intervention: a recipient with its head, and a donor that reads along as far as is needed."""

import inspect
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    DynamicCache,
    PreTrainedModel,
)

from bisae.errors import ConfigError
from bisae.lm.generation import forget_folder
from bisae.lm.loading import load
from bisae.lm.model import Checkpoint
from bisae.lm.residual import ResidualReader

REMEMBERED = 2**30  # bytes of streams


def load_causal_lm(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The whole LM with its head, ready to be asked. ConfigError as in `bisae.lm.loading.load`.

    It generates as it is told, never as its folder says (`bisae.lm.generation`).
    """
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code)
    own = "AutoModelForCausalLM" in getattr(config, "auto_map", {}) and checkpoint.trust_remote_code
    # What reads pictures too has an auto class of its own, but where its text decoder does not.
    auto = AutoModelForCausalLM if own or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForMultimodalLM
    model: PreTrainedModel = load(auto, checkpoint, dtype).to(device)  # type: ignore[arg-type]
    forget_folder(model)
    return model


def check_pair(donor: Checkpoint, recipient: Checkpoint) -> None:
    """ConfigError unless both read the same tokens into streams of the same width."""
    for what in ("tokenizer", "d_model", "hook"):
        found, wanted = getattr(donor, what), getattr(recipient, what)
        if found != wanted:
            remedy = f"has the {what} {found}, and {recipient.model} at step {recipient.step} {wanted}"
            raise ConfigError("donor", f"{donor.model} at step {donor.step}", remedy)


class Donor(ResidualReader):
    """An LM cut at the deepest of `layers`, with a cache of its own while the recipient generates.

    What it makes of whole texts is kept, up to `REMEMBERED` bytes: each intervention reads the same ones.
    """

    _cache: DynamicCache | None = None
    _left = REMEMBERED

    @torch.no_grad()
    def follow(self, seen: int, use_cache: bool, **inputs: Tensor | None) -> dict[int, Float[Tensor, "..."]]:
        """The streams on the tokens that the recipient reads now, having `seen` so many in its own cache.

        ValueError where the donor has not read along from the beginning, in the same order of sequences.
        """
        if seen == 0:  # its own, since a pass that ends early returns none
            self._cache = DynamicCache(config=self.model.config) if use_cache and can_cache(self.model) else None
        elif self._cache is None or self._cache.get_seq_length() != seen:
            raise ValueError(f"the recipient goes on after {seen} tokens that the donor has not read")
        text = None if use_cache else tuple((name, _content(one)) for name, one in inputs.items())
        if text in self._remembered:
            return self._remembered[text]
        known = inspect.signature(self.model.forward).parameters
        given: dict[str, Any] = {name: value for name, value in inputs.items() if value is not None and name in known}
        if self._cache is not None:
            given["past_key_values"] = self._cache
        streams = self._pass(given["input_ids"].shape, **given, use_cache=self._cache is not None)
        if text is not None and (size := sum(one.nbytes for one in streams.values())) <= self._left:
            self._left -= size
            self._remembered[text] = streams
        return streams

    @cached_property
    def _remembered(self) -> dict[Any, dict[int, Tensor]]:
        return {}


def can_cache(model: PreTrainedModel) -> bool:
    """Whether an LM goes on from keys and values of the tokens before; a state-space LM has states of another kind."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def _content(values: Tensor | None) -> Any:
    """What tensors of ids and masks are equal by."""
    return values if values is None else (tuple(values.shape), values.cpu().numpy().tobytes())
