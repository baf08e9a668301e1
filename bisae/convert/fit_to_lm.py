"""How well an SAE fits an LM's streams, on a few thousand tokens: a wrong layer shows."""

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
    """Streams of an LM at several layers on the same tokens."""

    languages: tuple[str, ...]
    language: UInt8[Tensor, " token"]
    sequence: Int64[Tensor, " token"]  # counts up
    streams: Mapping[int, Float[Tensor, "token d_model"]]

    @classmethod
    def of(cls, source: LMPass, layers: Sequence[int], tokens: int) -> "Sample":
        """The first `tokens` of the source, or a little more; all it has if they are fewer."""
        source = replace(source, shard_batches=1)
        language: list[Tensor] = []
        first: list[Tensor] = []
        streams: list[Mapping[int, Tensor]] = []
        shard = 0
        while sum(len(part) for part in language) < tokens and (found := source.tokens(shard)):
            language.append(torch.from_numpy(found.language))
            first.append(torch.from_numpy(found.position == 0))
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
        """The metrics of bisae/metrics/reconstruction.py, overall and by language."""
        metrics = ReconstructionMetrics(self.languages, sae.d_model, sae.latents)
        size = max(1, DENSE // sae.latents)
        for rows, language in zip(self.streams[layer].split(size), self.language.split(size), strict=True):
            x, norm = sae.normalize(rows)
            codes = sae.encode_unit(x)
            metrics.update(x, norm, sae.decode(codes), codes, language)
        return metrics.compute()

    def norm(self, layer: int) -> float:
        """The mean L2 norm of the stream."""
        return torch.linalg.vector_norm(self.streams[layer].float(), dim=1).mean().item()
