"""Measure how well an SAE fits an LM's residual streams on a few thousand tokens, so that a wrong layer is noticed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bisae.lm.lm_pass import LMPass
from bisae.metrics.reconstruction import ReconstructionMetrics
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder
from bisae.sae.encoder import DENSE


@dataclass(frozen=True, eq=False)
class Sample:
    """An LM's residual streams at several layers, on the same tokens."""

    languages: tuple[str, ...]
    language: UInt8[Tensor, " token"]
    sequence: Int64[Tensor, " token"]  # number of each token's sequence
    streams: Mapping[int, Float[Tensor, "token d_model"]]

    @classmethod
    def of(cls, source: LMPass, layers: Sequence[int], tokens: int) -> "Sample":
        """Run the LM on the first `tokens` tokens of the source, or slightly more; on all if it has fewer.

        Raises:
            Refused: the source's split has no text.
        """
        source = replace(source, shard_batches=1)
        language: list[Tensor] = []
        first: list[Tensor] = []
        streams: list[Mapping[int, Tensor]] = []
        shard = 0
        while sum(len(part) for part in language) < tokens and (shard_tokens := source.tokens(shard)):
            language.append(torch.from_numpy(shard_tokens.language))
            first.append(torch.from_numpy(shard_tokens.position == 0))
            streams.append(source.activations(shard, layers))
            source.forget(shard)
            shard += 1
        source.release()
        if not language:
            raise Refused("split", source.split, "has no text")
        joined = {layer: torch.cat([part[layer] for part in streams]) for layer in layers}
        return cls(source.corpus.languages, torch.cat(language), torch.cat(first).cumsum(0), joined)

    @torch.no_grad()
    def quality(self, sae: SparseAutoencoder, layer: int) -> dict[str, float]:
        """The SAE's metrics at a layer, overall and by language: see bisae/metrics/reconstruction.py."""
        metrics = ReconstructionMetrics(self.languages, sae.d_model, sae.latents)
        size = max(1, DENSE // sae.latents)
        for rows, language in zip(self.streams[layer].split(size), self.language.split(size), strict=True):
            x, norm = sae.normalize(rows)
            codes = sae.encode_unit(x)
            metrics.update(x, norm, sae.decode(codes), codes, language)
        return metrics.compute()

    def norm(self, layer: int) -> float:
        """The mean L2 norm of the residual stream at a layer."""
        return torch.linalg.vector_norm(self.streams[layer].float(), dim=1).mean().item()
