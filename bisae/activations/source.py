"""What a cache asks of the LM pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import BFloat16, Int16, Int32, UInt8
from torch import Tensor

from bisae.errors import ConfigError

FEW = 16  # tokens
Progress = Callable[[int, int], None]  # is told (tokens done, tokens in all)


@dataclass(frozen=True)
class TokenShard:
    """The tokens of one shard in reading order, BOS and padding already gone.

    `language` indexes the corpus' languages, `document` counts documents of the corpus split, `position` is the
    token's position in its sequence, from 0 for the first after BOS.
    """

    token_ids: Int32[np.ndarray, " token"]
    language: UInt8[np.ndarray, " token"]
    document: Int32[np.ndarray, " token"]
    position: Int16[np.ndarray, " token"]

    @property
    def tokens(self) -> int:
        return len(self.token_ids)


@runtime_checkable
class Source(Protocol):
    """The activations of one (model, LM checkpoint, corpus split), shard by shard.

    Shard j is a pure function of the fingerprint and j, so a cache grows by tokens (more shards) and by layers
    (the same shards again) and holds the same values as one made at once.
    """

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """Everything that changes a value or the cut into shards; JSON values only."""

    @property
    def d_model(self) -> int: ...

    @property
    def depth(self) -> int:
        """The deepest layer there is."""
        ...

    def ready(self, layers: Sequence[int]) -> None:
        """Load the LM for `layers`, which `activations` does too; ConfigError where it cannot be read."""

    def tokens(self, shard: int) -> TokenShard | None:
        """Shard `shard` without running the LM; None past the end of the corpus split."""

    def ended(self) -> str:
        """Once `tokens` gave None: which language ran out of documents, after how many tokens."""
        ...

    def remarks(self) -> list[str]:
        """What is odd about the text read so far, in a sentence each."""
        ...

    def forget(self, shard: int) -> None:
        """Shard `shard` will not be asked for soon: free what it takes. Asked for again, it is made again."""

    def release(self) -> None:
        """Nothing more is asked: free the LM and all tokens."""

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, BFloat16[Tensor, "token d_model"]]:
        """One LM pass over the shard: the residual stream at each of `layers`, rows as in `tokens(shard)`."""


def too_few(key: str, tokens: int, held: int, source: Source) -> ConfigError:
    """That the split of `source`, read to its end, holds fewer than the `tokens` that config key `key` asks for."""
    take = f"{key.rpartition('.')[0]}.short_split=take".lstrip(".")
    remedy = f"the corpus split holds only {held} tokens: {source.ended()}"
    return ConfigError(key, tokens, f"{remedy}; lower it, give more text, or take what there is: {take}")


def computed(
    source: Source, shard: int, tokens: int, layers: Sequence[int]
) -> dict[int, BFloat16[Tensor, "token d_model"]]:
    """One LM pass over a shard of `tokens` tokens, its values on the CPU.

    ValueError if they are not what they must be; ConfigError if they are the same for all tokens.
    """
    found = source.activations(shard, layers)
    values = {layer: found[layer].detach().cpu().contiguous() for layer in layers}
    for layer, rows in values.items():
        if rows.dtype != torch.bfloat16 or rows.shape != (tokens, source.d_model):
            wanted = f"torch.bfloat16 {[tokens, source.d_model]}"
            raise ValueError(f"layer {layer} of shard {shard} is {rows.dtype} {list(rows.shape)}, not {wanted}")
        check_varied(rows, layer, shard)
    return values


def check_varied(rows: BFloat16[Tensor, "token d_model"], layer: int, shard: int) -> None:
    """ConfigError if all tokens of a shard have the same activations, which say nothing about any of them."""
    # Two rows tell it in nearly all shards, so that nothing more is read. A few tokens may be the same word.
    if len(rows) < FEW or not torch.equal(rows[0], rows[-1]) or not bool((rows == rows[0]).all()):
        return
    are = "0" if not rows[0].any() else "the same vector"
    remedy = "is this part of the LM (model.hook) without effect, or its weights not trained? Leave the layer out"
    raise ConfigError("layer", layer, f"all {len(rows)} activations of shard {shard} are {are}: {remedy}")
