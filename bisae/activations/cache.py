"""Find the cache of a source, or make, extend or resume it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bisae.activations.disk_budget import make_room, note_use
from bisae.activations.manifest import CacheError, Manifest, source_name
from bisae.activations.reader import CachedActivations
from bisae.activations.store import Progress, Source, too_few
from bisae.activations.writer import missing_shards, remove_unlisted, shard_sizes, write_missing
from bisae.runtime.errors import Refused
from bisae.runtime.lock import sole_writer


@dataclass(frozen=True)
class ActivationCache:
    """All caches under `folder`.

    Args:
        disk_gib: Largest total size in GiB.
        evict: Delete the least recently used caches if a new one needs room.
        verify: Check every file's checksum on opening, not only its size.
    """

    folder: Path
    disk_gib: int | float
    evict: bool
    verify: bool

    def check(
        self, source: Source, tokens: int, field: str, progress: Progress | None = None, take_short: bool = False
    ) -> list[int]:
        """Return the sizes in tokens of the fewest leading shards that hold `tokens` tokens; runs no LM.

        Raises Refused (`field`) if the corpus split holds fewer; with `take_short`, only if it holds none.
        """
        if tokens < 1:
            raise Refused(field, tokens, "must be at least 1")
        sizes = shard_sizes(source, self._manifest(source), tokens, progress)
        if sum(sizes) < tokens and not (take_short and sizes):
            raise too_few(field, tokens, sum(sizes), source)
        return sizes

    def prepare(
        self, source: Source, layers: Sequence[int], tokens: int, progress: Progress | None = None
    ) -> CachedActivations:
        """Return at least `tokens` tokens of `layers`; the LM runs only for shards and layers that are not cached yet.

        Any number of processes may call this at once: one writes, the others wait. A complete cache is opened without
        a lock and without writing. After a killed writer, the next one resumes at the first incomplete shard.

        Args:
            progress: Called with (tokens done, tokens in all).

        Raises:
            Refused: The corpus (`tokens`) or the disk (`disk_gib`) is too small; raised before any LM work.
            CacheError: Files are damaged.
        """
        sizes = self.check(source, tokens, "tokens")
        layers = sorted(set(layers))
        folder = self.path(source)
        manifest = Manifest.load(folder, source)
        if manifest is not None and manifest.covers(layers, tokens):
            try:
                return self._open(folder, manifest, layers, tokens)
            except CacheError:
                # Files may also be gone because another process is evicting this cache: its manifest went first.
                if Manifest.load(folder, source) == manifest:
                    raise
        with sole_writer(folder):
            # Another writer may have done the work, or part of it, while this one waited.
            manifest = self._manifest(source)
            missing = missing_shards(manifest, layers, sizes)
            if missing:
                remove_unlisted(folder, manifest)
                needed = sum(shard.bytes(source.d_model) for shard in missing)
                self.make_room(folder, needed)
                report = progress or (lambda done, total: None)
                manifest = write_missing(source, folder, manifest, missing, sum(sizes), report)
            return self._open(folder, manifest, layers, tokens)

    def missing_bytes(self, source: Source, layers: Sequence[int], sizes: Sequence[int]) -> int:
        """Return the bytes that `prepare` would write for `layers` of shards with these `sizes` in tokens."""
        missing = missing_shards(self._manifest(source), layers, sizes)
        return sum(shard.bytes(source.d_model) for shard in missing)

    def make_room(self, keep: Path, needed: int) -> None:
        """Make sure that `needed` more bytes fit. Raises Refused (`disk_gib`) if not."""
        other = "other caches cannot make way" if self.evict else "or drop the least used: evict=true"
        make_room(self.folder, keep, needed, self.disk_gib, self.evict, f"lower tokens ({other})")

    def path(self, source: Source) -> Path:
        """Return the folder of the source's cache."""
        return self.folder / source_name(source)

    def _manifest(self, source: Source) -> Manifest:
        return Manifest.load(self.path(source), source) or Manifest.empty(source)

    def _open(self, folder: Path, manifest: Manifest, layers: Sequence[int], tokens: int) -> CachedActivations:
        opened = CachedActivations(folder, manifest, layers, tokens, self.verify)
        note_use(folder)
        return opened
