"""A text of random activations, and codes of it, small enough for dense references."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor

from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.tokens import Tokens
from bisae.sae import TopK
from tests.activations.fake_source import FakeSource


class InMemory:
    """Activations at hand; `asked` has the rows of every window."""

    name = "in-memory"
    in_ram = False

    def __init__(self, values: Mapping[int, BFloat16[Tensor, "token d_model"]]) -> None:
        self.values, self.asked = values, list[list[int]]()
        first = next(iter(values.values()))
        self.tokens, self.d_model = first.shape

    def window(
        self, start: int, stop: int, wanted: Callable[[], Int64[np.ndarray, " token"]], following: object
    ) -> "InMemory":
        self.asked.append(wanted().tolist())
        return self

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        out.copy_(self.values[layer][torch.from_numpy(rows)])

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return np.zeros(len(rows), np.uint8)

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        return [0]

    def done(self, rows: object, passed: int) -> None: ...

    def close(self, finished: bool) -> None: ...


def tokens_of(lengths: Sequence[int], seed: int = 0, vocabulary: int = 7) -> Tokens:
    """Sequences of these lengths, alternately in two languages, a document each."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return Tokens(
        token_ids=random.integers(vocabulary, size=sum(lengths), dtype=np.int32),
        language=(number % 2).astype(np.uint8),
        document=number,
        position=np.concatenate([np.arange(length, dtype=np.int16) for length in lengths]),
    )


def reading_of(tokens: Tokens, d_model: int = 6, seed: int = 0) -> AnalysedActivations:
    values = torch.randn(len(tokens), d_model, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return AnalysedActivations(FakeSource(d_model=d_model), tokens, [2], InMemory({2: values}))


def random_sae(d_model: int = 6, latents: int = 10, k: int = 3, seed: int = 0) -> TopK:
    sae = TopK(d_model, latents, k)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / d_model**0.5)
    return sae
