"""Keep all activations on disk; all SAEs that are trained on them share the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bisae.activations.cache import ActivationCache
from bisae.activations.reader import CachedActivations
from bisae.activations.store import Progress, Request, Source
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Positive, Text
from bisae.runtime.ranks import Part
from bisae.runtime.values import writable


@dataclass(frozen=True)
class Cached:
    """An `ActivationCache` as a `bisae.activations.store.Store`.

    Args:
        folder, disk_gib, evict, verify: See `ActivationCache`.
        layers: Layers that other jobs need, computed in the same LM pass: a list, or "all". Layers that the LM does not
            have are left out, since one list may serve LMs of several depths.
    """

    shared: ClassVar[bool] = True
    on_disk: ClassVar[bool] = True

    folder: Text
    disk_gib: Positive
    evict: bool
    verify: bool
    layers: Sequence[int] | str

    def __post_init__(self) -> None:
        is_list = isinstance(self.layers, Sequence) and all(str(layer).isdecimal() for layer in self.layers)
        if self.layers != "all" and not is_list:
            raise Refused("layers", self.layers, "give a list of layers, or all")

    def check(self, asked: Request, progress: Progress) -> list[int]:
        writable({"folder": Path(self.folder)})
        cache, needed, held = self._cache(asked.part), 0, []
        used = self._with_others(asked.layers, asked.training.depth)
        for source, tokens, field in asked.texts:
            sizes = cache.check(source, tokens, field, progress, asked.take_short)
            needed += cache.missing_bytes(source, used, sizes)
            held.append(min(tokens, sum(sizes)))
        if needed and not self.evict:  # with eviction it is not known yet which caches make way
            cache.make_room(cache.folder, needed)
        return held

    def open(
        self,
        source: Source,
        layers: Sequence[int],
        tokens: int,
        job: str,
        part: Part,
        progress: Progress,
        kept: object = None,  # what is not read costs nothing
        on_gpu: object = None,
    ) -> CachedActivations:
        try:
            return self._cache(part).prepare(source, self._with_others(layers, source.depth), tokens, progress)
        finally:
            source.release()  # the files hold what is needed from here on

    def _with_others(self, layers: Sequence[int], depth: int) -> list[int]:
        others = range(1, depth + 1) if self.layers == "all" else map(int, self.layers)
        return sorted({*layers, *(layer for layer in others if layer <= depth)})

    def _cache(self, part: Part) -> ActivationCache:
        # Rank 0 has checked every byte before the others open the files.
        return ActivationCache(Path(self.folder), self.disk_gib, self.evict, self.verify and part.rank == 0)
