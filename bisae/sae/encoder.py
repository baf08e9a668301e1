"""The encoder: the one dense product of a training step."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bisae.sae.codes import Codes
from bisae.sae.scratch import scratch
from bisae.sae.weights import Weights


def pre_activations(
    centred: Float[Tensor, "token d_model"],
    W_enc: Float[Tensor, "latent d_model"],
    b_enc: Float[Tensor, " latent"],
    out: Float[Tensor, "token latent"] | None = None,
) -> Float[Tensor, "token latent"]:
    """`W_enc centred + b_enc` in the dtype of `centred`; under autocast only the product has the lower precision."""
    device = centred.device.type
    if not torch.is_autocast_enabled(device):
        return F.linear(centred, W_enc, b_enc) if out is None else torch.addmm(b_enc, centred, W_enc.T, out=out)
    low = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return torch.add(F.linear(centred.to(low), W_enc.to(low)), b_enc, out=out)


@torch.no_grad()
def encode(centred: Float[Tensor, "token d_model"], weights: Weights, select: Callable[[Tensor], Codes]) -> Codes:
    """What `select` keeps of the pre-activations, which are gone afterwards."""
    out = scratch(len(centred), len(weights.W_enc), like=centred)
    return select(pre_activations(centred, weights.W_enc, weights.b_enc, out))
