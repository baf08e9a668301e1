"""Interfaces: a Source computes activations, a Store opens Activations, which are read one window of Rows at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import BFloat16, Int16, Int32, Int64, UInt8
from torch import Tensor

from bisae.activations.order import ReadingOrder
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part

FEW = 16  # tokens: so few may all be the same word
Progress = Callable[[int, int], None]  # is told (tokens done, tokens in all)


@dataclass(frozen=True)
class TokenShard:
    """The tokens of one shard in reading order, without BOS and padding.

    Args:
        language: Index into the corpus' languages.
        document: Number of the document in the corpus split.
        position: Position of the token in its sequence, 0 for the first one after BOS.
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
    """The activations of one (model, LM checkpoint, corpus split), computed shard by shard.

    Shard j depends on the fingerprint and j only. So a cache can grow by tokens (more shards) and by layers (the same
    shards again), and then holds the same values as a cache made at once.
    """

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """All settings that change a value or the cut into shards, as JSON values."""

    @property
    def d_model(self) -> int: ...

    @property
    def depth(self) -> int:
        """Number of the deepest layer."""
        ...

    def ready(self, layers: Sequence[int]) -> None:
        """Load the LM for `layers` now; else `activations` loads it. Raises Refused if the LM cannot be read."""

    def tokens(self, shard: int) -> TokenShard | None:
        """Return the tokens of a shard without running the LM; None past the end of the corpus split."""

    def ended(self) -> str:
        """Say which language ran out of documents, and after how many tokens; called once `tokens` returned None."""
        ...

    def remarks(self) -> list[str]:
        """Describe what is odd about the text read so far, in a sentence each."""
        ...

    def forget(self, shard: int) -> None:
        """Free the memory of a shard that is not needed soon. It is made again if it is requested again."""

    def release(self) -> None:
        """Free the LM and all tokens: nothing more is requested."""

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, BFloat16[Tensor, "token d_model"]]:
        """Run the LM once over the shard; return the stream at each of `layers`, with the rows of `tokens(shard)`."""


def too_few(field: str, tokens: int, held: int, source: Source) -> Refused:
    """Return the error for a split, read to its end, that holds only `held` of the `tokens` that `field` asks for."""
    remedy = "lower it, give more text, or take what there is: short_split=take"
    return Refused(field, tokens, f"the corpus split holds only {held} tokens: {source.ended()}; {remedy}")


def computed(
    source: Source, shard: int, tokens: int, layers: Sequence[int]
) -> dict[int, BFloat16[Tensor, "token d_model"]]:
    """Run the LM once over a shard of `tokens` tokens and return its values on the CPU.

    Raises:
        ValueError: The values have another dtype or shape than the protocol says.
        Refused: All tokens have the same activations at a `layer`.
    """
    streams = source.activations(shard, layers)
    values = {layer: streams[layer].detach().cpu().contiguous() for layer in layers}
    for layer, rows in values.items():
        if rows.dtype != torch.bfloat16 or rows.shape != (tokens, source.d_model):
            wanted = f"torch.bfloat16 {[tokens, source.d_model]}"
            raise ValueError(f"layer {layer} of shard {shard} is {rows.dtype} {list(rows.shape)}, not {wanted}")
        check_varied(rows, layer, shard)
    return values


def check_varied(rows: BFloat16[Tensor, "token d_model"], layer: int, shard: int) -> None:
    """Refuse a `layer` if all tokens of a shard have the same activations there: nothing can be learned from them."""
    # In nearly all shards two rows differ, and no more is read.
    if len(rows) < FEW or not torch.equal(rows[0], rows[-1]) or not bool((rows == rows[0]).all()):
        return
    are = "0" if not rows[0].any() else "the same vector"
    remedy = "is this part of the LM (hook) without effect, or its weights not trained? Leave the layer out"
    raise Refused("layer", layer, f"all {len(rows)} activations of shard {shard} are {are}: {remedy}")


@runtime_checkable
class Rows(Protocol):
    """Rows of the token stream that are in memory or mapped, and can be read any number of times."""

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        """Copy `rows`, in ascending order, into `out`. Reusing `out` is faster: new memory costs more than copying."""

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]: ...

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        """Return the shards of these rows in ascending order, for messages about wrong values."""
        ...


class RowWindow(NamedTuple):
    """The rows start ... stop - 1, and what returns those that this process reads, in ascending order."""

    start: int
    stop: int
    wanted: Callable[[], Int64[np.ndarray, " token"]]


@runtime_checkable
class Activations(Protocol):
    """The activations of one source, read window after window."""

    @property
    def in_ram(self) -> bool:
        """Whether rows cost the same in any order, and are to be told when they are `done`."""
        ...

    @property
    def name(self) -> str:
        """Name of the source, for provenance."""
        ...

    @property
    def d_model(self) -> int: ...

    @property
    def tokens(self) -> int:
        """Number of all rows."""
        ...

    def window(
        self,
        start: int,
        stop: int,
        wanted: Callable[[], Int64[np.ndarray, " token"]],
        following: RowWindow | None,
    ) -> Rows:
        """Return the rows start ... stop - 1; the rows of the window before may no longer be read.

        Under DDP all ranks open the same windows in the same order.

        Args:
            wanted: Returns the rows of the window that this process reads, in ascending order.
            following: The next window, so that it can be prepared; None for the last.
        """
        ...

    def done(self, rows: Int64[np.ndarray, " token"], passed: int) -> None:
        """`rows` of this window are not read again; all processes together are done with its first `passed` rows."""

    def close(self, finished: bool) -> None:
        """End reading. With `finished`, files of this job only are deleted; else they help it to resume."""


class Request(NamedTuple):
    """The activations that a job reads: `order.tokens` tokens for training, `held_out_tokens` for validation.

    With `take_short`, a corpus split that holds fewer tokens is read to its end; else it is refused. `part` says which
    share of the LM's work this process does. It reads the same share of the rows of all `layers`, or with `own_layers`
    all rows of these only. `on_gpu`: whether the SAEs are trained on a GPU.
    """

    training: Source
    held_out: Source
    layers: Sequence[int]
    order: ReadingOrder
    held_out_tokens: int
    part: Part
    take_short: bool = False
    own_layers: Sequence[int] | None = None
    on_gpu: bool = False

    @property
    def kept(self) -> Sequence[int]:
        """The layers that this process reads."""
        return self.layers if self.own_layers is None else self.own_layers

    @property
    def rows(self) -> Part:
        """Its part of the rows."""
        return self.part if self.own_layers is None else ALONE

    @property
    def texts(self) -> list[tuple[Source, int, str]]:
        """Each source, the number of its tokens that is requested, and the field with that number."""
        return [
            (self.training, self.order.tokens, "tokens"),
            (self.held_out, self.held_out_tokens, "validation_tokens"),
        ]

    def limited(self, training: int, held_out: int) -> "Request":
        """Return a copy with other numbers of tokens."""
        return self._replace(order=replace(self.order, tokens=training), held_out_tokens=held_out)


@runtime_checkable
class Store(Protocol):
    """Keeps activations on disk or in RAM (config group `activations`)."""

    shared: ClassVar[bool]  # by all jobs of an LM checkpoint, so that the LM reads the text once, before the training
    on_disk: ClassVar[bool]

    def check(self, asked: Request, progress: Progress) -> list[int]:
        """Check text, disk and memory before any LM runs; reads the corpus once.

        Returns:
            The number of tokens of each of `asked.texts`: the requested ones, or those of a shorter corpus.

        Raises:
            Refused: Text, disk or memory is too small, or a folder cannot be written.
        """
        ...

    def open(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        job: str,
        part: Part,
        progress: Progress,
        kept: Sequence[int] | None = None,
        on_gpu: bool = False,
    ) -> Activations:
        """Return at least `tokens` rows of `layers`; `progress` gets (tokens done, tokens in all) of the LM's work.

        `job` names files that are kept for this job only; `kept` are the layers that this process reads, if not all;
        `on_gpu` says that they are used on a GPU, beside which the CPU can work.
        """
        ...


class ShardRows:
    """Rows stored shard by shard, in mapped files or in RAM: `values[layer][i]` is shard `first_shard + i`."""

    def __init__(
        self,
        first_shard: int,
        borders: Int64[np.ndarray, " shard_and_one"],
        values: Mapping[int, Sequence[BFloat16[Tensor, "_ d_model"]]],
        d_model: int,
    ) -> None:
        """`borders` holds the first row of each shard, and the row after the last shard."""
        self.first_shard, self.borders, self.values, self.d_model = first_shard, borders, values, d_model

    def read(self, layer: int, start: int, stop: int) -> BFloat16[Tensor, "token d_model"]:
        """Return a copy of the rows `start` ... `stop` - 1. Raises IndexError if some are not here."""
        rows = np.arange(start, stop)
        out = torch.empty(len(rows), self.d_model, dtype=torch.bfloat16)
        self.gather_ascending(layer, rows, out)
        return out

    def gather(self, layer: int, rows: Int64[np.ndarray, " token"]) -> BFloat16[Tensor, "token d_model"]:
        """Return a copy of `rows` in the given order. Raises IndexError as `read` does."""
        order = np.argsort(rows, kind="stable")
        out = torch.empty(len(rows), self.d_model, dtype=torch.bfloat16)
        self.gather_ascending(layer, rows[order], out)
        return out.index_select(0, torch.from_numpy(np.argsort(order)))

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        """Copy `rows`, in ascending order, into `out`. Raises IndexError as `read` does."""
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
        shards: list[int] = np.unique(np.searchsorted(self.borders, rows, side="right") - 1).tolist()
        return [self.first_shard + shard for shard in shards]
