"""The operation on a residual stream: features of a donor put into it, or its own taken out or scaled.

With h the recipient's stream, h' the donor's, z their codes by one SAE, S the chosen features, c the coefficient and
s = ||h'|| (norm `donor`) or ||h|| (norm `recipient`), since codes are of streams of norm 1:

| mode      | the new stream                                                   |
|-----------|------------------------------------------------------------------|
| `add`     | h + c s sum_S z_i(h') W_dec[i]                                   |
| `replace` | the same less h's own ||h|| sum_S z_i(h) W_dec[i]                |
| `ablate`  | h - ||h|| sum_S z_i(h) W_dec[i]; no donor, no coefficient        |
| `scale`   | h + (c - 1) ||h|| sum_S z_i(h) W_dec[i]; no donor                |

b_pre is in none of them. How the paper combined norm, mode and coefficient is not known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import Codes, SparseAutoencoder
from bisae.sae.encoder import DENSE
from bisae.sae.kernels.products import weighted_sums

MODES = ("add", "replace", "ablate", "scale")
ALONE = ("ablate", "scale")  # modes that no donor takes part in
NORMS = ("donor", "recipient")


@dataclass(frozen=True, eq=False)
class StreamPair:
    """The streams at one layer on the tokens that may change: `kept` of a batch, BOS and padding left out.

    `donor` is None where the LM is alone: then the recipient is its own.
    """

    recipient: Float[Tensor, "token d_model"]
    donor: Float[Tensor, "token d_model"] | None
    kept: Bool[Tensor, "sequence position"]


Edit = Callable[[StreamPair], Float[Tensor, "token d_model"]]  # the recipient's new stream, in any float dtype


@dataclass(frozen=True, eq=False)
class FeatureEdit:
    """The features `chosen`, by the table above.

    As a control, `shuffled` takes the codes of another sentence of the batch.
    Refused for an unknown mode or norm, or a coefficient that is not finite.
    """

    sae: SparseAutoencoder
    chosen: Bool[Tensor, " latent"]
    mode: str
    norm: str
    coefficient: float
    shuffled: bool

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refused("mode", self.mode, f"choose one of {', '.join(MODES)}")
        if self.norm not in NORMS:
            raise Refused("norm", self.norm, f"choose one of {', '.join(NORMS)}")
        if not math.isfinite(self.coefficient):
            raise Refused("coefficient", self.coefficient, "must be finite")

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        stream = streams.recipient.to(self.sae.W_dec.dtype)
        length = self.sae.normalize(stream)[1][:, None]  # what its codes are a share of
        source, scale = stream, length
        if streams.donor is not None and self.mode not in ALONE:
            source = streams.donor.to(stream.dtype)
            if self.norm == "donor":
                scale = self.sae.normalize(source)[1][:, None]
        given = self._part(source)
        if self.shuffled:
            others = other_rows(streams.kept)
            given = torch.zeros_like(given) if others is None else given[others]
        given = scale * given
        if self.mode == "ablate":
            return stream - given
        if self.mode == "scale":
            return stream + (self.coefficient - 1) * given
        if self.mode == "replace":
            stream = stream - length * self._part(stream)
        return stream + self.coefficient * given

    def _part(self, activation: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """What the chosen features say of the activations, in the SAE's space."""
        parts = []
        for rows in pieces(self.sae, activation):
            codes = self.sae.encode(rows)
            parts.append(part_of(codes, self.chosen, self.sae.W_dec))
        return torch.cat(parts)


def pieces(
    sae: SparseAutoencoder, activation: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "piece d_model"], ...]:
    """So many rows at a time that their pre-activations fit in memory."""
    return activation.split(max(1, DENSE // sae.latents))


def part_of(
    codes: Codes, chosen: Bool[Tensor, " latent"], W_dec: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "token d_model"]:
    """sum_i z_i W_dec[i] over the chosen latents."""
    values = codes.values * chosen[codes.indices]  # not cut out: a GPU need not be waited for
    return weighted_sums(W_dec, codes.indices, codes.offsets, values)


def other_rows(kept: Bool[Tensor, "sequence position"]) -> Int[Tensor, " token"] | None:
    """For each kept token, in order, the number of the token that stands in its column in the next sequence.

    Where the next sequence has not begun or has ended there, its first or last token. Columns and not ranks are what
    left-padded generation has in common with and without a cache. None unless two sequences have tokens: of answers
    that are generated side by side, the longest ends alone.
    """
    counts = kept.sum(1)
    (speaking,) = counts.nonzero(as_tuple=True)
    if len(speaking) < 2:
        return None
    latest = kept.flatten().cumsum(0).view_as(kept) - 1  # number of the last kept token up to each place
    first = counts.cumsum(0) - counts
    partner = torch.arange(len(kept), device=kept.device)
    partner[speaking] = speaking.roll(-1)
    return torch.maximum(latest[partner], first[partner][:, None])[kept]
