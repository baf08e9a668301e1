"""A typical norm of activations folded into an SAE, for formats that have no inputs of norm 1."""

from typing import Any

import torch

from bisae.convert.source import JUMP_RELU
from bisae.sae import BatchTopK, JumpReLU, SparseAutoencoder
from bisae.sae.architectures.raw import RAW


@torch.no_grad()
def folded(sae: SparseAutoencoder, norm: float) -> SparseAutoencoder:
    """An SAE on raw inputs that does on activations of this norm what `sae` does, with codes `norm` times as large."""
    arguments: dict[str, Any] = dict(sae.arguments)
    state = sae.state_dict()
    if isinstance(sae, BatchTopK):
        arguments = {"d_model": sae.d_model, "latents": sae.latents, **JUMP_RELU}
        state["threshold"] = sae.threshold.expand(sae.latents)
    raw = RAW[type(sae)](**arguments)
    raw.load_state_dict(state)
    for tensor in (raw.b_enc, raw.b_pre, *([raw.threshold] if isinstance(raw, JumpReLU) else [])):
        tensor.mul_(norm)
    return raw
