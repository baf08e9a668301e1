"""Keep activations in RAM only: the rows of a window, to which the LM adds those of the next as rows are done.

Under DDP every rank runs the LM on its share of the shards and hands them to the others, which keep the rows they need.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import BFloat16, Int64
from torch import Tensor

from bisae.activations.disk_budget import GIB
from bisae.activations.feed import held_out_window
from bisae.activations.manifest import BYTES_PER_VALUE, source_name
from bisae.activations.ram_rows import KeptRows, RowStock
from bisae.activations.shard_cursor import PlacedShard, ShardCursor, check_split
from bisae.activations.store import Progress, Request, RowWindow, Source, computed
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE, Part

Streams = dict[int, BFloat16[Tensor, "token d_model"]]
BATCHES = 3  # pinned at once: being used, being copied to the GPU, being gathered


def shards_at_once(layers: int, kept: int, ahead: bool) -> int:
    """How often the largest shard of one layer is in a process's RAM.

    Its own of all `layers`, with `ahead` the next one too; one layer of another rank's; the end of one of the layers
    that it has `kept`, where a window ends within a shard.
    """
    return (1 + ahead) * layers + 1 + kept


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
        ahead, kept = asked.on_gpu, len(asked.kept)
        rows = rows * kept + shard * shards_at_once(len(asked.layers), kept, ahead)
        rows += ahead * BATCHES * kept * asked.order.batch // asked.rows.world
        needed = rows * asked.training.d_model * BYTES_PER_VALUE
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
        on_gpu: bool = False,
    ) -> "StreamingActivations":
        source.ready(layers)  # so that an LM that cannot be read is refused before the job begins
        # Where SAEs are on the CPU, the thread would only take its cores from them.
        return StreamingActivations(source, layers, tokens, part, kept, ahead=on_gpu)


class StreamingActivations:
    """RAM: the rows of one window that this rank reads, of the layers it has `kept`, and its own shard of all layers.

    With `ahead` a thread runs the LM over the window that follows, whose rows take the memory of those that are done
    (`done`): the LM is at work all the time, and there are no more rows in RAM than without. Ranks hand shards on where
    the order of their batches says so, and so all at the same place.
    """

    in_ram = True

    def __init__(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        part: Part = ALONE,
        kept: Sequence[int] | None = None,
        ahead: bool = False,
    ) -> None:
        self.name, self.tokens, self.d_model = source_name(source), tokens, source.d_model
        self._source, self._layers, self._part = source, sorted(layers), part
        self._read = self._layers if kept is None else sorted(kept)
        self._walk = ShardCursor(source, tokens)
        self._stock = RowStock(self._read, self.d_model)
        self._kept: KeptRows | None = None
        self._coming: KeptRows | None = None
        # The shard in which the last window ended, and its values from there on.
        self._border: tuple[PlacedShard, int, dict[int, BFloat16[Tensor, "token d_model"]]] | None = None
        self._thread = ThreadPoolExecutor(1, "activation-lm") if ahead else None
        self._computing: tuple[int, Future[Streams]] | None = None
        self._received = torch.empty(0, dtype=torch.bfloat16)
        self._group: Any = None

    def window(
        self, start: int, stop: int, wanted: Callable[[], Int64[np.ndarray, " token"]], following: RowWindow | None
    ) -> KeptRows:
        rows = wanted()
        if self._kept is not None:
            self._kept.forget()
        kept, self._kept, self._coming = self._coming, None, None
        if kept is None or not kept.is_for(start, stop, rows):
            if self._computing is not None:
                self._computing[1].exception()  # whatever became of it
            self._computing = None
            self._stock.clear()
            kept = KeptRows(start, stop, rows, self._stock)
        coming = None
        if self._thread is not None and following is not None:
            coming = KeptRows(following.start, following.stop, following.wanted(), self._stock)
        self._stock.reserve(len(rows) + (0 if coming is None else len(coming.rows)))
        self._place(kept)
        while kept.left:
            self._take(kept)
        if coming is not None:
            self._place(coming)
            self._compute(coming)
        self._kept, self._coming = kept, coming
        return kept

    def done(self, rows: Int64[np.ndarray, " token"], passed: int) -> None:
        if self._kept is not None:
            self._kept.forget(rows)
        coming = self._coming
        while coming is not None and coming.left:
            if min(self._turn(coming)[-1].after, coming.stop) - coming.start > passed:
                return
            self._take(coming)

    def close(self, finished: bool) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._stock = RowStock([], self.d_model)
        self._kept = self._coming = self._border = None

    def _place(self, kept: KeptRows) -> None:
        """Read the text of a window. The LM runs only over shards that were read, and not at the same time."""
        if kept.left is not None:
            return
        kept.left = self._walk.covering(kept.start, kept.stop)
        border, self._border = self._border, None
        if border is not None and kept.left[0].number == border[0].number and border[1] <= kept.start:
            shard, first, values = border
            kept.begin(shard)
            for layer in self._read:
                kept.put(shard, layer, values[layer], first - shard.first)
            kept.left = kept.left[1:]
            if shard.after > kept.stop:
                self._border = border

    def _turn(self, kept: KeptRows) -> list[PlacedShard]:
        """The next shards, one of each rank's."""
        assert kept.left is not None
        return kept.left[: self._part.world]

    def _own(self, kept: KeptRows) -> PlacedShard | None:
        return next((shard for shard in self._turn(kept) if self._part.owns(shard.number)), None)

    def _compute(self, kept: KeptRows) -> None:
        """Let the thread run the LM over this rank's next shard."""
        shard = self._own(kept)
        if self._thread is not None and shard is not None:
            asked = self._source, shard.number, shard.tokens.tokens, self._layers
            self._computing = shard.number, self._thread.submit(computed, *asked)

    def _computed(self, kept: KeptRows) -> Streams:
        """The values of this rank's shard of a turn."""
        shard, computing, self._computing = self._own(kept), self._computing, None
        if shard is None:
            return {}
        if computing is not None and computing[0] == shard.number:
            return computing[1].result()
        return computed(self._source, shard.number, shard.tokens.tokens, self._layers)

    def _take(self, kept: KeptRows) -> None:
        """Put the shards of a turn into a window, which this rank or another one computed."""
        turn = self._turn(kept)
        # Before anything is handed on, so that all ranks run their LMs at the same time.
        own = self._computed(kept)
        assert kept.left is not None
        kept.left = kept.left[len(turn) :]
        self._compute(kept)
        for shard in turn:
            kept.begin(shard)
            rest: Streams = {}
            for layer in self._layers:
                values = self._handed_on(shard, own[layer] if self._part.owns(shard.number) else None)
                if layer in self._read:
                    kept.put(shard, layer, values)
                    if shard.after > kept.stop:
                        rest[layer] = values[kept.stop - shard.first :].clone()
            if shard.after > kept.stop:
                self._border = shard, kept.stop, rest

    def _handed_on(
        self, shard: PlacedShard, values: BFloat16[Tensor, "token d_model"] | None
    ) -> BFloat16[Tensor, "token d_model"]:
        """The values of one layer of a shard, on all ranks; of another rank's they are valid until the next call."""
        if values is None:
            size = shard.tokens.tokens * self.d_model
            if len(self._received) < size:
                self._received = torch.empty(size, dtype=torch.bfloat16)
            values = self._received[:size].view(-1, self.d_model)
        if self._part.world > 1:
            from torch import distributed

            self._group = self._group or distributed.new_group(backend="gloo")  # no tensors on a GPU
            raw = values.view(torch.uint8)
            distributed.broadcast(raw, src=shard.number % self._part.world, group=self._group)
        return values
