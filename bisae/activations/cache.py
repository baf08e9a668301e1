"""The store of activations: finds a cache that holds what is asked, or makes, extends and resumes it."""

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
    """All caches under `folder`, which together may take `disk_gib` GiB.

    With `evict` the least recently used ones make way for a new one; with `verify` every file's checksum is
    checked on opening, not only its size.
    """

    folder: Path
    disk_gib: int | float
    evict: bool
    verify: bool

    def check(
        self, source: Source, tokens: int, field: str, progress: Progress | None = None, take_short: bool = False
    ) -> list[int]:
        """Refuse, as `field`, to prepare more tokens than the corpus split holds; runs no LM.

        Returns the tokens of the fewest leading shards that hold them; with `take_short`, of all if they hold fewer.
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
        """Return at least `tokens` tokens of `layers`, running the LM only for what is not cached yet.

        Any number of processes may ask at once: one writes, the others wait. A complete cache is opened without
        lock and without writing. A writer that was killed is resumed at its first incomplete shard.
        `progress` is called with (tokens done, tokens in all).
        Refused before any LM work if the corpus (see `check`) or the disk is too small; CacheError if files are
        damaged.
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
        """What `prepare` would write to have `layers` of the shards of `sizes`."""
        missing = missing_shards(self._manifest(source), layers, sizes)
        return sum(shard.bytes(source.d_model) for shard in missing)

    def make_room(self, keep: Path, needed: int) -> None:
        """See that `needed` more bytes fit; Refused if not."""
        other = "other caches cannot make way" if self.evict else "or drop the least used: evict=true"
        make_room(self.folder, keep, needed, self.disk_gib, self.evict, f"lower tokens ({other})")

    def path(self, source: Source) -> Path:
        """The folder of `source`'s cache."""
        return self.folder / source_name(source)

    def _manifest(self, source: Source) -> Manifest:
        return Manifest.load(self.path(source), source) or Manifest.empty(source)

    def _open(self, folder: Path, manifest: Manifest, layers: Sequence[int], tokens: int) -> CachedActivations:
        opened = CachedActivations(folder, manifest, layers, tokens, self.verify)
        note_use(folder)
        return opened
