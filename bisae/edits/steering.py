"""Steering: the same features at the same strength on every token, whatever the text."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bisae.edits.operation import StreamPair
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Steering:
    """h + ||h|| sum_i strength_i W_dec[i]: strengths compare with the activations in a cell's `features.parquet`."""

    sae: SparseAutoencoder
    direction: Float[Tensor, " d_model"]

    @classmethod
    def towards(cls, sae: SparseAutoencoder, strengths: Mapping[int, float]) -> "Steering":
        """`strengths` by number of the feature."""
        given = sae.W_dec.new_tensor(list(strengths.values()))
        return cls(sae, given @ sae.W_dec.detach()[list(strengths)])

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        stream = streams.recipient.to(self.direction.dtype)
        return stream + self.sae.normalize(stream)[1][:, None] * self.direction
