"""The edit of a residual stream: add features of a donor LM, or remove or scale the LM's own features.

With h the recipient's stream, h' the donor's, z their codes by one SAE, S the chosen features, c the coefficient and
s = ||h'|| (norm `donor`) or ||h|| (norm `recipient`), since the SAE encodes streams scaled to norm 1:

| mode      | the new stream                                                   |
|-----------|------------------------------------------------------------------|
| `add`     | h + c s sum_S z_i(h') W_dec[i]                                   |
| `replace` | the same less h's own ||h|| sum_S z_i(h) W_dec[i]                |
| `ablate`  | h - ||h|| sum_S z_i(h) W_dec[i]; no donor, no coefficient        |
| `scale`   | h + (c - 1) ||h|| sum_S z_i(h) W_dec[i]; no donor                |

None of them contains b_pre. It is not known how the paper combined norm, mode and coefficient.
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
ALONE = ("ablate", "scale")  # modes without a donor
NORMS = ("donor", "recipient")


@dataclass(frozen=True, eq=False)
class StreamPair:
    """The residual streams of recipient and donor at one layer, on the tokens of a batch that may change.

    `kept` marks these tokens in the batch: all but BOS and padding. `donor` is None for an edit without a donor.
    """

    recipient: Float[Tensor, "token d_model"]
    donor: Float[Tensor, "token d_model"] | None
    kept: Bool[Tensor, "sequence position"]


Edit = Callable[[StreamPair], Float[Tensor, "token d_model"]]  # the recipient's new stream, in any float dtype


@dataclass(frozen=True, eq=False)
class FeatureEdit:
    """Edit of a stream by the features `chosen`; the formula of each `mode` stands in the table above.

    Args:
        sae: encodes and decodes the streams of this layer.
        chosen: the features of the edit.
        mode: one of `MODES`.
        norm: one of `NORMS`: the length that the added vector is scaled to.
        coefficient: c in the table.
        shuffled: as a control, use the codes of another sentence of the batch.
        encode: what encodes in place of the SAE, as one that remembers codes; None: the SAE.

    Raises:
        Refused: `mode` or `norm` is unknown, or `coefficient` is not finite.
    """

    sae: SparseAutoencoder
    chosen: Bool[Tensor, " latent"]
    mode: str
    norm: str
    coefficient: float
    shuffled: bool
    encode: Callable[[Tensor], Codes] | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refused("mode", self.mode, f"choose one of {', '.join(MODES)}")
        if self.norm not in NORMS:
            raise Refused("norm", self.norm, f"choose one of {', '.join(NORMS)}")
        if not math.isfinite(self.coefficient):
            raise Refused("coefficient", self.coefficient, "must be finite")

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        stream = streams.recipient.to(self.sae.W_dec.dtype)
        length = self.sae.normalize(stream)[1][:, None]  # codes are relative to it
        source, scale = stream, length
        if streams.donor is not None and self.mode not in ALONE:
            source = streams.donor.to(stream.dtype)
            if self.norm == "donor":
                scale = self.sae.normalize(source)[1][:, None]
        added = contribution(self.sae, self.chosen, source, self.encode)
        if self.shuffled:
            others = other_rows(streams.kept)
            added = torch.zeros_like(added) if others is None else added[others]
        added = scale * added
        if self.mode == "ablate":
            return stream - added
        if self.mode == "scale":
            return stream + (self.coefficient - 1) * added
        if self.mode == "replace":
            stream = stream - length * contribution(self.sae, self.chosen, stream, self.encode)
        return stream + self.coefficient * added


def contribution(
    sae: SparseAutoencoder,
    chosen: Bool[Tensor, " latent"],
    activation: Float[Tensor, "token d_model"],
    encode: Callable[[Tensor], Codes] | None = None,
) -> Float[Tensor, "token d_model"]:
    """The chosen features' decoded contribution to the activations, which the SAE scales to norm 1."""
    parts = (part_of((encode or sae.encode)(rows), chosen, sae.W_dec) for rows in pieces(sae, activation))
    return torch.cat(list(parts))


def pieces(
    sae: SparseAutoencoder, activation: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, "piece d_model"], ...]:
    """The activations in pieces of so many tokens that the pre-activations of a piece fit in memory."""
    return activation.split(max(1, DENSE // sae.latents))


def part_of(
    codes: Codes, chosen: Bool[Tensor, " latent"], W_dec: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "token d_model"]:
    """The contribution of the chosen latents: sum_i z_i W_dec[i]."""
    values = codes.values * chosen[codes.indices]  # a mask, not a selection: no wait for the GPU
    return weighted_sums(W_dec, codes.indices, codes.offsets, values)


def other_rows(kept: Bool[Tensor, "sequence position"]) -> Int[Tensor, " token"] | None:
    """For each kept token, in order, the number of the kept token in the same column of the next sequence.

    Where the next sequence has not begun or has ended at that column, its first or last token is taken. Columns are
    the same in left-padded generation with and without a cache; positions in the sequence are not. Returns None unless
    at least two sequences have tokens: the longest of several answers ends alone.
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
