"""The two LMs of an intervention: a recipient with its head, and a donor that reads along as far as is needed."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from bisae.errors import ConfigError
from bisae.lm.generation import forget_folder
from bisae.lm.model import Checkpoint
from bisae.lm.residual import ResidualReader, check_complete


def load_causal_lm(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The whole LM, ready to be asked; it generates as it is told, never as its folder says (`bisae.lm.generation`).
    ConfigError where weights are missing."""
    transformers_logging.disable_progress_bar()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=dtype, trust_remote_code=checkpoint.trust_remote_code, output_loading_info=True
    )
    lm, loading = loaded
    check_complete(checkpoint, loading)
    forget_folder(lm)
    model: PreTrainedModel = lm.to(device).eval()
    return model


def check_pair(donor: Checkpoint, recipient: Checkpoint) -> None:
    """ConfigError unless both read the same tokens into streams of the same width."""
    for what in ("tokenizer", "d_model", "hook"):
        found, wanted = getattr(donor, what), getattr(recipient, what)
        if found != wanted:
            remedy = f"has the {what} {found}, and {recipient.model} at step {recipient.step} {wanted}"
            raise ConfigError("donor", f"{donor.model} at step {donor.step}", remedy)


class Donor(ResidualReader):
    """An LM cut at the deepest of `layers`, with a cache of its own while the recipient generates."""

    _cache: Any = None

    @torch.no_grad()
    def follow(self, seen: int, use_cache: bool, **inputs: Tensor | None) -> dict[int, Float[Tensor, "..."]]:
        """The streams on the tokens that the recipient reads now, having `seen` so many in its own cache.

        ValueError where the donor has not read along from the beginning, in the same order of sequences.
        """
        if seen == 0:
            self._cache = None
        elif self._cache is None or self._cache.get_seq_length() != seen:
            raise ValueError(f"the recipient goes on after {seen} tokens that the donor has not read")
        self._streams = {}
        found = self.model(**inputs, past_key_values=self._cache, use_cache=use_cache)
        self._cache = found.past_key_values if use_cache else None
        return self._streams
