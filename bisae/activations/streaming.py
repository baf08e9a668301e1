"""Keep activations in RAM only: the LM runs when a window begins, and the rows to be read stay in memory.

Under DDP every rank runs the LM on its share of the shards and hands them to the others, which keep the rows they need.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import BFloat16, Int64, UInt8
from torch import Tensor

from bisae.activations.disk_budget import GIB
from bisae.activations.feed import held_out_window
from bisae.activations.manifest import BYTES_PER_VALUE, source_name
from bisae.activations.shard_cursor import PlacedShard, ShardCursor, check_split
from bisae.activations.store import Progress, Request, Source, computed
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part


@dataclass(frozen=True)
class Streaming:
    """Uses no disk; a `bisae.activations.store.Store`. The LM runs again in every epoch."""

    shared: ClassVar[bool] = False
    on_disk: ClassVar[bool] = False

    def check(self, asked: Request, progress: Progress) -> list[int]:
        window = asked.order.window(0)[1]
        splits = [check_split(*text, progress, asked.take_short) for text in asked.texts]
        shard = max(largest for _, largest in splits)
        rows = (window + min(held_out_window(window), asked.held_out_tokens)) // asked.rows.world
        values = (rows * len(asked.kept) + 2 * shard * len(asked.layers)) * asked.training.d_model
        needed = values * BYTES_PER_VALUE
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > memory:
            sizes = f"a process needs {needed / GIB:.3g} GiB for its windows, the machine has {memory / GIB:.3g} GiB"
            remedy = "lower it, pool_batches or shard_batches"
            raise Refused("window_pools", asked.order.window_pools, f"{sizes}; {remedy}")
        return [held for held, _ in splits]

    def open(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        job: str,
        part: Part,
        progress: object,
        kept: Sequence[int] | None = None,
    ) -> "StreamingActivations":
        source.ready(layers)  # so that an LM that cannot be read is refused before the job begins
        return StreamingActivations(source, layers, tokens, part, kept)


class KeptRows:
    """The rows of one window that this process reads, in RAM."""

    def __init__(
        self,
        rows: Int64[np.ndarray, " token"],
        values: dict[int, BFloat16[Tensor, "row d_model"]],
        language: UInt8[np.ndarray, " token"],
        shards: Sequence[PlacedShard],
    ) -> None:
        self._rows, self._values, self._language = rows, values, language
        self._first = np.array([shard.first for shard in shards])
        self._numbers = np.array([shard.number for shard in shards])

    def gather_ascending(
        self, layer: int, rows: Int64[np.ndarray, " token"], out: BFloat16[Tensor, "token d_model"]
    ) -> None:
        torch.index_select(self._values[layer], 0, torch.from_numpy(self._place(rows)), out=out)

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return self._language[self._place(rows)]

    def shards_of(self, rows: Int64[np.ndarray, " token"]) -> list[int]:
        shards: list[int] = self._numbers[np.unique(np.searchsorted(self._first, rows, side="right") - 1)].tolist()
        return shards

    def forget(self) -> None:
        """Raise IndexError for all rows from now on: other rows take their memory."""
        self._rows = self._rows[:0]

    def _place(self, rows: Int64[np.ndarray, " token"]) -> Int64[np.ndarray, " token"]:
        place = np.searchsorted(self._rows, rows)
        if place.max(initial=-1) >= len(self._rows) or not np.array_equal(self._rows[place], rows):
            raise IndexError("rows that were not asked for with the window, or of a window gone by")
        return place


class StreamingActivations:
    """RAM: the rows of one window that this rank reads, of the layers it has `kept`, and two shards of all layers."""

    def __init__(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        part: Part = ALONE,
        kept: Sequence[int] | None = None,
    ) -> None:
        self.name, self.tokens, self.d_model = source_name(source), tokens, source.d_model
        self._source, self._layers, self._part = source, sorted(layers), part
        self._read = self._layers if kept is None else sorted(kept)
        self._walk = ShardCursor(source, tokens)
        self._buffers: dict[int, BFloat16[Tensor, "row d_model"]] = {}
        self._kept: KeptRows | None = None
        self._group: Any = None

    def window(
        self, start: int, stop: int, wanted: Callable[[], Int64[np.ndarray, " token"]], following: object
    ) -> KeptRows:
        rows = wanted()
        shards = self._walk.covering(start, stop)
        if self._kept is not None:
            self._kept.forget()
        for layer in self._read:  # kept from window to window, as in a feed's pool
            if layer not in self._buffers or len(self._buffers[layer]) < len(rows):
                self._buffers[layer] = torch.empty(len(rows), self.d_model, dtype=torch.bfloat16)
        language = np.empty(len(rows), np.uint8)
        for shard, streams in self._computed(shards):
            low, high = np.searchsorted(rows, (shard.first, shard.after))
            inside = rows[low:high] - shard.first
            language[low:high] = shard.tokens.language[inside]
            for layer in self._read:
                torch.index_select(streams[layer], 0, torch.from_numpy(inside), out=self._buffers[layer][low:high])
        self._kept = KeptRows(rows, self._buffers, language, shards)
        return self._kept

    def close(self, finished: bool) -> None:
        self._buffers = {}

    def _computed(
        self, shards: Sequence[PlacedShard]
    ) -> Iterator[tuple[PlacedShard, dict[int, BFloat16[Tensor, "token d_model"]]]]:
        """Yield every shard with its values, which this rank or another one computed."""
        world = self._part.world
        for first in range(0, len(shards), world):
            turn = shards[first : first + world]
            # Before anything is handed on, so that all ranks run their LMs at the same time.
            own = {
                shard.number: computed(self._source, shard.number, shard.tokens.tokens, self._layers)
                for shard in turn
                if self._part.owns(shard.number)
            }
            for shard in turn:
                shape = shard.tokens.tokens, self.d_model
                values = own.get(shard.number) or {
                    layer: torch.empty(shape, dtype=torch.bfloat16) for layer in self._layers
                }
                if world > 1:
                    from torch import distributed

                    self._group = self._group or distributed.new_group(backend="gloo")  # no tensors on a GPU
                    for layer in self._layers:
                        raw = values[layer].view(torch.uint8)
                        distributed.broadcast(raw, src=shard.number % world, group=self._group)
                yield shard, values
