"""Strength of a set of features in the donor's stream; random controls are scaled to it."""

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
    """Measures how strongly sets of features fire, on the donor's streams at the beginnings of some documents.

    Attributes:
        donor: reads the documents.
        layers: the SAE at each layer.
        documents: token ids without BOS.
        bos: id put before each document and not measured, or None.
        context: tokens read of a document at most, BOS included.
        batch: documents read at a time.
    """

    donor: DonorReader
    layers: Mapping[int, LayerFeatures]
    documents: list[tokens.TokenizedDocument]
    bos: int | None
    context: int
    batch: int
    _codes: dict[int, list[Codes]] = field(default_factory=dict, init=False)

    def of(self, layer: int, chosen: Bool[np.ndarray, " latent"]) -> float:
        """Mean L2 norm over tokens of the chosen features' decoded contribution, for streams of norm 1."""
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
        heads = [[*prefix, *ids] for ids in self._beginnings(self.context - len(prefix))]
        self._codes.update({layer: [] for layer in self.layers})
        for _, ids, mask in batches(heads, self.batch, self.donor.device):
            kept = mask.bool()
            kept[:, : len(prefix)] = False
            streams = self.donor.read(ids)
            for layer, sae in ((layer, features.sae) for layer, features in self.layers.items()):
                rows = streams[layer][kept].to(sae.W_dec.dtype)
                self._codes[layer] += [sae.encode(piece) for piece in pieces(sae, rows)]

    def _beginnings(self, longest: int) -> Iterator[list[int]]:
        """The beginnings of documents, evenly spaced in the list so that they hold about `TOKENS` tokens."""
        heads = [document.ids[:longest].tolist() for document in self.documents]
        every = max(1, sum(map(len, heads)) // TOKENS)
        yield from heads[::every]
