"""Steering: add the same features at the same strength to every token."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bisae.edits.operation import StreamPair
from bisae.sae import SparseAutoencoder


@dataclass(frozen=True, eq=False)
class Steering:
    """Edit h + ||h|| sum_i strength_i W_dec[i]; strengths in the unit of a cell's `features.parquet`."""

    sae: SparseAutoencoder
    direction: Float[Tensor, " d_model"]

    @classmethod
    def towards(cls, sae: SparseAutoencoder, strengths: Mapping[int, float]) -> "Steering":
        """The edit that adds each feature (by number) at its strength."""
        values = sae.W_dec.new_tensor(list(strengths.values()))
        return cls(sae, values @ sae.W_dec.detach()[list(strengths)])

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        stream = streams.recipient.to(self.direction.dtype)
        return stream + self.sae.normalize(stream)[1][:, None] * self.direction
