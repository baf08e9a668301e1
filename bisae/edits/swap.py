"""Swap one word's part of the residual stream for another word's, as the LM has it in the same text.

With h the stream at a word, h' the stream of the same LM at the same position of the text with the other word in its
place, z their codes by one SAE and S the chosen features, p(h) = ||h|| sum_S z_i(h) W_dec[i] is what the features
contribute to h. The new stream is

    h + c (p(h') ||p(h)|| / ||p(h')|| - p(h))

where c is 1, or for a random control what makes its change as long as that of the kind. Both words have as many tokens,
so that positions correspond.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bisae.edits.operation import StreamPair, contribution
from bisae.edits.patched_lm import DonorReader
from bisae.lm.model import Checkpoint
from bisae.sae import Codes, SparseAutoencoder


class WordSwap(NamedTuple):
    """The word at position `place` of a text, and the ids of the word, as many, that takes its place."""

    place: int
    other: tuple[int, ...]


class SwapTexts:
    """Finds the word to be swapped in each row of a right-padded batch, by the row's ids (`swaps`, BOS included)."""

    def __init__(self, swaps: Mapping[tuple[int, ...], WordSwap]) -> None:
        self.swaps = swaps

    def _rows(self, ids: Int[Tensor, "sequence position"], mask: Tensor | None) -> list[WordSwap]:
        lengths = [ids.shape[1]] * len(ids) if mask is None else mask.sum(1).tolist()
        return [self.swaps[tuple(row[:length])] for row, length in zip(ids.tolist(), lengths, strict=True)]

    def places(self, ids: Int[Tensor, "sequence position"], mask: Tensor | None) -> Bool[Tensor, "sequence position"]:
        """True at the positions of the words."""
        marked = torch.zeros_like(ids, dtype=torch.bool)
        for row, swap in zip(marked, self._rows(ids, mask), strict=True):
            row[swap.place : swap.place + len(swap.other)] = True
        return marked

    def others(self, ids: Int[Tensor, "sequence position"], mask: Tensor | None) -> Int[Tensor, "sequence position"]:
        """The same texts with the other word in place of each."""
        changed = ids.clone()
        for row, swap in zip(changed, self._rows(ids, mask), strict=True):
            row[swap.place : swap.place + len(swap.other)] = ids.new_tensor(swap.other)
        return changed


class CounterpartReader(DonorReader):
    """Reads, while an LM reads a text, what the same LM has where the other word stands (`SwapTexts.others`)."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        layers: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        texts: SwapTexts,
    ) -> None:
        super().__init__(checkpoint, layers, dtype, device)
        self._texts = texts

    def follow(self, seen: int, use_cache: bool, **inputs: Tensor | None) -> dict[int, Float[Tensor, "..."]]:
        ids = inputs["input_ids"]
        assert ids is not None
        return super().follow(
            seen, use_cache, **{**inputs, "input_ids": self._texts.others(ids, inputs.get("attention_mask"))}
        )


@dataclass(frozen=True, eq=False)
class FeatureSwap:
    """Edit that replaces what the features `chosen` say of a word by what they say of the other; see above.

    Args:
        coefficient: c above.
        encode: what encodes in place of the SAE, as one that remembers codes; None: the SAE.
    """

    sae: SparseAutoencoder
    chosen: Bool[Tensor, " latent"]
    coefficient: float = 1.0
    encode: Callable[[Tensor], Codes] | None = None

    def __call__(self, streams: StreamPair) -> Float[Tensor, "token d_model"]:
        assert streams.donor is not None
        stream = streams.recipient.to(self.sae.W_dec.dtype)
        parts: list[Any] = []
        for source in (stream, streams.donor.to(stream.dtype)):
            parts.append(contribution(self.sae, self.chosen, source, self.encode))
        own = self.sae.normalize(stream)[1][:, None] * parts[0]
        size, other = (torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (own, parts[1]))
        put = torch.where(other > 0, parts[1] * size / other.clamp_min(torch.finfo(other.dtype).tiny), 0)
        return stream + self.coefficient * (put - own)


def swapped_stream(streams: StreamPair) -> Float[Tensor, "token d_model"]:
    """The edit that replaces the whole stream by the one of the other word: the most that features could do."""
    assert streams.donor is not None
    return streams.donor
