"""The two LMs of an intervention: a recipient with its head, and a donor that reads along as far as is needed."""

from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from bisae.errors import ConfigError
from bisae.lm.model import Checkpoint
from bisae.lm.residual import ResidualReader, check_complete

REMEMBERED = 2**30  # bytes of streams


def load_causal_lm(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The whole LM, ready to be asked. ConfigError where weights are missing."""
    transformers_logging.disable_progress_bar()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder, dtype=dtype, trust_remote_code=checkpoint.trust_remote_code, output_loading_info=True
    )
    lm, loading = loaded
    check_complete(checkpoint, loading)
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
    """An LM cut at the deepest of `layers`, with a cache of its own while the recipient generates.

    What it makes of whole texts is kept, up to `REMEMBERED` bytes: each intervention reads the same ones.
    """

    _cache: Any = None
    _left = REMEMBERED

    @torch.no_grad()
    def follow(self, seen: int, use_cache: bool, **inputs: Tensor | None) -> dict[int, Float[Tensor, "..."]]:
        """The streams on the tokens that the recipient reads now, having `seen` so many in its own cache.

        ValueError where the donor has not read along from the beginning, in the same order of sequences.
        """
        if seen == 0:
            self._cache = None
        elif self._cache is None or self._cache.get_seq_length() != seen:
            raise ValueError(f"the recipient goes on after {seen} tokens that the donor has not read")
        text = None if use_cache else tuple((name, _content(one)) for name, one in inputs.items())
        if text in self._remembered:
            return self._remembered[text]
        self._streams = {}
        found = self.model(**inputs, past_key_values=self._cache, use_cache=use_cache)
        self._cache = found.past_key_values if use_cache else None
        if text is not None and (size := sum(one.nbytes for one in self._streams.values())) <= self._left:
            self._left -= size
            self._remembered[text] = self._streams
        return self._streams

    @cached_property
    def _remembered(self) -> dict[Any, dict[int, Tensor]]:
        return {}


def _content(values: Tensor | None) -> Any:
    """What tensors of ids and masks are equal by."""
    return values if values is None else (tuple(values.shape), values.cpu().numpy().tobytes())
