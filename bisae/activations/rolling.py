"""Write activations one window ahead of the training and delete them behind it: bounded disk, any number of tokens.

    <root>/rolling/<job>-<16 hex digits of the source's fingerprint>/layer02/00007.bin     as in a cache

Under DDP every rank runs the LM on its share of the shards; all read all files, so ranks share a file system.
"""

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from bisae.activations.disk_budget import make_room
from bisae.activations.manifest import BYTES_PER_VALUE, layer_path, source_name
from bisae.activations.reader import mapped
from bisae.activations.shard_cursor import PlacedShard, ShardCursor, check_split
from bisae.activations.store import Progress, Request, RowWindow, ShardRows, Source, computed
from bisae.activations.writer import raw_bytes
from bisae.runtime.atomic import atomic_file
from bisae.runtime.lock import sole_writer
from bisae.runtime.ranges import Positive, Text
from bisae.runtime.ranks import ALONE, Part
from bisae.runtime.values import writable

SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Rolling:
    """Keeps two windows of the activations on disk; a `bisae.activations.store.Store`.

    The LM runs again in every epoch.

    Args:
        folder: Folder of all stores of this kind.
        disk_gib: Largest total size of `folder` in GiB.
    """

    shared: ClassVar[bool] = False
    on_disk: ClassVar[bool] = True

    folder: Text
    disk_gib: Positive

    def check(self, asked: Request, progress: Progress) -> list[int]:
        folder, window = Path(self.folder), asked.order.window(0)[1]
        writable({"folder": folder})
        rows, left, available = 0, 0, []
        for source, tokens, field in asked.texts:
            held, shard = check_split(source, tokens, field, progress, asked.take_short)
            available.append(held)
            rows += min(2 * window + 3 * shard, held + shard)  # windows end within shards
            files = folder.glob(f"rolling/*-{source_name(source)}/layer*/*.bin")
            left += sum(file.stat().st_size for file in files)  # by this job when it was killed: used again
        needed = max(0, rows * asked.training.d_model * BYTES_PER_VALUE * len(asked.layers) - left)
        make_room(folder, folder, needed, self.disk_gib, False, "lower window_pools")
        return available

    def open(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        job: str,
        part: Part,
        progress: object,
        kept: object = None,  # all processes write files for all
        on_gpu: object = None,
    ) -> "RollingActivations":
        source.ready(layers)  # so that an LM that cannot be read is refused before the job begins
        folder = Path(self.folder) / "rolling" / f"{job}-{source_name(source)}"
        lock = ExitStack()
        if part.rank == 0:  # the same job with other `runs` has the same folder
            lock.enter_context(sole_writer(folder))
        return RollingActivations(source, folder, layers, tokens, part, lock)


class WindowRows(ShardRows):
    """The shards of one window, mapped: they stay readable after their files are deleted."""

    def __init__(self, shards: Sequence[PlacedShard], folder: Path, layers: Sequence[int], d_model: int) -> None:
        borders = np.array([shards[0].first, *(shard.after for shard in shards)])
        values = {
            layer: [mapped(layer_path(folder, layer, s.number), s.tokens.tokens, d_model) for s in shards]
            for layer in layers
        }
        super().__init__(shards[0].number, borders, values, d_model)
        self._language = np.concatenate([shard.tokens.language for shard in shards])

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return self._language[rows - self.borders[0]]


class RollingActivations:
    """At most two windows on disk: the one being read, and the next, which a thread writes meanwhile.

    A resumed job uses the files that it wrote before it was killed.
    """

    in_ram = False

    def __init__(
        self,
        source: Source,
        folder: Path,
        layers: Sequence[int],
        tokens: int,
        part: Part = ALONE,
        lock: ExitStack | None = None,
    ) -> None:
        """`lock` is the lock of `folder`; it is held until `close`."""
        self.name, self.tokens, self.d_model = source_name(source), tokens, source.d_model
        self._source, self._folder, self._layers, self._part = source, folder, sorted(layers), part
        self._walk = ShardCursor(source, tokens)
        self._thread = ThreadPoolExecutor(1, "activation-writer")
        self._ahead: tuple[tuple[int, int], list[PlacedShard], Future[None]] | None = None
        self._stop = threading.Event()
        self._lock = lock or ExitStack()
        self._group: Any = None

    def window(self, start: int, stop: int, wanted: object, following: RowWindow | None) -> WindowRows:
        if self._part.world > 1:  # no rank may be a window ahead of one that still opens, or writes, its files
            # A group of its own: batches may be read in a thread, beside messages of the training.
            self._group = self._group or torch.distributed.new_group(backend="gloo")
            torch.distributed.barrier(group=self._group)
        if self._ahead is None or self._ahead[0] != (start, stop):
            self._jump(start, stop, following)
        assert self._ahead is not None
        _, shards, written = self._ahead
        written.result()
        rows = WindowRows(shards, self._folder, self._layers, self.d_model)
        self._ahead = None
        # The corpus is read here: the thread only ever runs the LM, on shards that are there.
        placed = [] if following is None else self._walk.covering(following.start, following.stop)
        self._delete_others([*shards, *placed])
        if following is not None:
            self._ahead = following[:2], placed, self._thread.submit(self._write, placed)
        return rows

    def done(self, rows: object, passed: int) -> None:
        """Their files go with the window."""

    def close(self, finished: bool) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)
        if finished and self._part.rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()

    def _jump(self, start: int, stop: int, following: RowWindow | None) -> None:
        """Begin with a window that was not announced as `following`."""
        if self._ahead is not None:
            self._stop.set()  # all ranks jump: none waits for the other's shards
            self._ahead[2].result()
            self._stop.clear()
        # What a killed job left makes room first, but for these two windows.
        placed = self._walk.covering(start, max(stop, following.stop if following else 0))
        self._delete_others(placed)
        shards = [shard for shard in placed if shard.first < stop]
        self._ahead = (start, stop), shards, self._thread.submit(self._write, shards)

    def _write(self, shards: Sequence[PlacedShard]) -> None:
        for shard in shards:
            if self._part.owns(shard.number) and not self._complete(shard) and not self._stop.is_set():
                for layer, values in computed(self._source, shard.number, shard.tokens.tokens, self._layers).items():
                    with atomic_file(layer_path(self._folder, layer, shard.number)) as temporary:
                        temporary.write_bytes(raw_bytes(values))
        while not all(self._complete(shard) for shard in shards):  # of the other ranks
            if self._stop.wait(SECONDS_BETWEEN_LOOKS):
                return

    def _complete(self, shard: PlacedShard) -> bool:
        size = shard.tokens.tokens * self.d_model * BYTES_PER_VALUE
        paths = [layer_path(self._folder, layer, shard.number) for layer in self._layers]
        return all(path.exists() and path.stat().st_size == size for path in paths)

    def _delete_others(self, keep: Sequence[PlacedShard]) -> None:
        if self._part.rank == 0:
            numbers = {shard.number for shard in keep}
            for path in self._folder.glob("layer*/*.bin"):
                if int(path.stem) not in numbers:
                    path.unlink()
