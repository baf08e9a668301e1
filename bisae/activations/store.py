"""Interfaces between the LM (`Source`), where activations are kept (`Store`) and who reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import BFloat16, Int16, Int32, Int64, UInt8
from torch import Tensor

from bisae.activations.order import ReadingOrder
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import Part

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
        """Load the LM for `layers`, which `activations` does too; Refused where it cannot be read."""

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


def too_few(field: str, tokens: int, held: int, source: Source) -> Refused:
    """That the split of `source`, read to its end, holds fewer than the `tokens` that `field` asks for."""
    remedy = "lower it, give more text, or take what there is: short_split=take"
    return Refused(field, tokens, f"the corpus split holds only {held} tokens: {source.ended()}; {remedy}")


def computed(
    source: Source, shard: int, tokens: int, layers: Sequence[int]
) -> dict[int, BFloat16[Tensor, "token d_model"]]:
    """One LM pass over a shard of `tokens` tokens, its values on the CPU.

    ValueError if they are not what they must be; Refused if they are the same for all tokens.
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
    """Refused if all tokens of a shard have the same activations, which say nothing about any of them."""
    # Two rows tell it in nearly all shards, so that nothing more is read. A few tokens may be the same word.
    if len(rows) < FEW or not torch.equal(rows[0], rows[-1]) or not bool((rows == rows[0]).all()):
        return
    are = "0" if not rows[0].any() else "the same vector"
    remedy = "is this part of the LM (hook) without effect, or its weights not trained? Leave the layer out"
    raise Refused("layer", layer, f"all {len(rows)} activations of shard {shard} are {are}: {remedy}")


@runtime_checkable
class Rows(Protocol):
    """Some rows of the token stream, which can be read any number of times."""

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        """Copy `rows`, which ascend, into `out`: touching new memory costs more than copying does."""

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]: ...

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        """The shards these rows lie in, ascending: where to look when their values are wrong."""
        ...


@runtime_checkable
class Activations(Protocol):
    """The activations of one source, read window after window; where they are kept is their own affair."""

    @property
    def name(self) -> str:
        """What they were computed from, for provenance."""
        ...

    @property
    def d_model(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Rows there are in all."""
        ...

    def window(
        self,
        start: int,
        stop: int,
        wanted: Callable[[], Int64[np.ndarray, " token"]],
        following: tuple[int, int] | None,
    ) -> Rows:
        """Have the rows start ... stop - 1; those of the window before may be gone from now on.

        `wanted`: which of them this process reads, ascending. `following`: the window that will be asked for next.
        Under DDP all ranks ask for the same windows in the same order.
        """
        ...

    def close(self, finished: bool) -> None:
        """Nothing more is read; with `finished` what was kept only for this job can go, else it helps to go on."""


class Request(NamedTuple):
    """What a job wants of a store: `order.tokens` tokens to train on, `held_out_tokens` to be scored on.

    `take_short`: of a corpus split that holds fewer what there is.
    """

    training: Source
    held_out: Source
    layers: Sequence[int]
    order: ReadingOrder
    held_out_tokens: int
    part: Part
    take_short: bool = False

    @property
    def texts(self) -> list[tuple[Source, int, str]]:
        """Each source, the tokens wanted of it, and the field that says so."""
        return [
            (self.training, self.order.tokens, "tokens"),
            (self.held_out, self.held_out_tokens, "validation_tokens"),
        ]

    def limited(self, training: int, held_out: int) -> "Request":
        """The same with as many tokens."""
        return self._replace(order=replace(self.order, tokens=training), held_out_tokens=held_out)


@runtime_checkable
class Store(Protocol):
    """Where activations are kept (config group `activations`)."""

    shared: ClassVar[bool]  # by all jobs of an LM checkpoint, so that the LM reads the text once, before the training
    on_disk: ClassVar[bool]

    def check(self, asked: Request, progress: Progress) -> list[int]:
        """Refuse, before any LM runs, what cannot be had: Refused. Reads the corpus once.

        Returns how many tokens there are of each of `asked.texts`, at most those asked for.
        """
        ...

    def open(
        self, source: Source, layers: Sequence[int], tokens: int, job: str, part: Part, progress: Progress
    ) -> Activations:
        """At least `tokens` rows of `layers`; `progress` is told (tokens done, tokens in all) of what is made now."""
        ...


class ShardRows:
    """Rows that lie shard by shard, in mapped files or in RAM: `values[layer][i]` is shard `first_shard + i`."""

    def __init__(
        self,
        first_shard: int,
        borders: Int64[np.ndarray, " shard_and_one"],
        values: Mapping[int, Sequence[BFloat16[Tensor, "_ d_model"]]],
        d_model: int,
    ) -> None:
        """`borders`: the first row of each shard, and the row after the last."""
        self.first_shard, self.borders, self.values, self.d_model = first_shard, borders, values, d_model

    def read(self, layer: int, start: int, stop: int) -> BFloat16[Tensor, "token d_model"]:
        """A copy of the rows `start` ... `stop` - 1. IndexError if some are not here."""
        rows = np.arange(start, stop)
        out = torch.empty(len(rows), self.d_model, dtype=torch.bfloat16)
        self.gather_ascending(layer, rows, out)
        return out

    def gather(self, layer: int, rows: Int64[np.ndarray, " token"]) -> BFloat16[Tensor, "token d_model"]:
        """A copy of `rows` in the order given; they are read in ascending order. IndexError as in `read`."""
        order = np.argsort(rows, kind="stable")
        out = torch.empty(len(rows), self.d_model, dtype=torch.bfloat16)
        self.gather_ascending(layer, rows[order], out)
        return out.index_select(0, torch.from_numpy(np.argsort(order)))

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        """Like `gather` for rows that ascend, into `out`."""
        if len(rows) and not self.borders[0] <= rows[0] <= rows[-1] < self.borders[-1]:
            have = f"{self.borders[0]} ... {self.borders[-1] - 1}"
            raise IndexError(f"rows {rows[0]} ... {rows[-1]} of the rows {have}")
        cuts = np.searchsorted(rows, self.borders)
        for shard, values in enumerate(self.values[layer]):
            low, high = cuts[shard : shard + 2]
            if low < high:
                inside = torch.from_numpy(rows[low:high] - self.borders[shard])
                torch.index_select(values, 0, inside, out=out[low:high])

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        found: list[int] = np.unique(np.searchsorted(self.borders, rows, side="right") - 1).tolist()
        return [self.first_shard + shard for shard in found]
