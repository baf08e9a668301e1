"""How much of the donor's stream a set of features is, so that a random control can be made as strong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool

from bisae.corpus import tokens
from bisae.edits.operation import part_of, pieces
from bisae.edits.patched_lm import DonorReader
from bisae.intervention.layer_features import LayerFeatures
from bisae.lm.batches import batches
from bisae.sae import Codes

TOKENS = 20_000  # enough for a mean


@dataclass(frozen=True, eq=False)
class Strength:
    """By the donor's codes on the heads of some documents, BOS left out."""

    donor: DonorReader
    layers: Mapping[int, LayerFeatures]
    documents: list[tokens.TokenizedDocument]
    bos: int | None
    context: int
    batch: int
    _codes: dict[int, list[Codes]] = field(default_factory=dict, init=False)

    def of(self, layer: int, chosen: Bool[np.ndarray, " latent"]) -> float:
        """The mean length of what the chosen features say, streams of norm 1 taken for granted."""
        features = self.layers[layer]
        if not self._codes:
            self._read()
        lengths = [
            torch.linalg.vector_norm(part_of(codes, features.tensor(chosen), features.sae.W_dec), dim=1)
            for codes in self._codes[layer]
        ]
        return torch.cat(lengths).mean().item()

    @torch.no_grad()
    def _read(self) -> None:
        prefix = [] if self.bos is None else [self.bos]
        heads = [[*prefix, *ids] for ids in self._heads(self.context - len(prefix))]
        self._codes.update({layer: [] for layer in self.layers})
        for _, ids, mask in batches(heads, self.batch, self.donor.device):
            kept = mask.bool()
            kept[:, : len(prefix)] = False
            streams = self.donor.read(ids)
            for layer, sae in ((layer, features.sae) for layer, features in self.layers.items()):
                rows = streams[layer][kept].to(sae.W_dec.dtype)
                self._codes[layer] += [sae.encode(piece) for piece in pieces(sae, rows)]

    def _heads(self, longest: int) -> Iterator[list[int]]:
        """Of every so many-th document, until there are enough tokens."""
        heads = [document.ids[:longest].tolist() for document in self.documents]
        every = max(1, sum(map(len, heads)) // TOKENS)
        yield from heads[::every]
