"""A typical norm of activations folded into an SAE, for formats that have no inputs of norm 1."""

from typing import Any

import torch

from bisae.sae import SparseAutoencoder
from bisae.sae.raw import RAW


@torch.no_grad()
def folded(sae: SparseAutoencoder, norm: float) -> SparseAutoencoder:
    """An SAE on raw inputs that does on activations of this norm what `sae` does, with codes `norm` times as large."""
    arguments: dict[str, Any] = sae.arguments
    raw = RAW[type(sae)](**arguments)
    raw.load_state_dict(sae.state_dict())
    for bias in (raw.b_enc, raw.b_pre):
        bias.mul_(norm)
    return raw
