"""The manifest of a cache folder: it lists the files that are complete."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from bisae.activations.store import Source
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import Damaged

FORMAT = 1
DTYPE = "bfloat16"
BYTES_PER_VALUE = 2
NAME = "manifest.json"


class CacheError(Damaged):
    """A cache folder that cannot be trusted. It is never repaired silently: a broken disk should be noticed."""

    def __init__(self, path: Path, problem: str, folder: Path) -> None:
        super().__init__(f"{path}: {problem}. Delete the folder {folder}: the next run computes it again.")
        self.path = path


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and xxh3_128 checksum (hex) of one file."""

    size: int
    checksum: str

    @classmethod
    def of(cls, data: bytes | memoryview) -> "FileEntry":
        return cls(len(data), xxhash.xxh3_128_hexdigest(data))


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its number of tokens, its token file, and a file for each layer computed so far."""

    tokens: int
    token_file: FileEntry
    layers: Mapping[int, FileEntry]


@dataclass(frozen=True)
class Manifest:
    """The shards 0, 1, 2, ... that are complete on disk."""

    fingerprint: Mapping[str, object]
    d_model: int
    shards: tuple[ShardEntry, ...] = ()

    @classmethod
    def empty(cls, source: Source) -> "Manifest":
        return cls(json.loads(canonical_json(source.fingerprint)), source.d_model)

    @classmethod
    def load(cls, folder: Path, source: Source) -> "Manifest | None":
        """Return the manifest in `folder`, or None if there is none.

        Raises CacheError if it is unreadable, has another format, or was made from another source.
        """
        path = folder / NAME
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CacheError(path, f"is not valid JSON ({error})", folder) from error
        version = content.get("format") if isinstance(content, dict) else None
        if version != FORMAT:
            raise CacheError(path, f"has format {version!r}, this version reads format {FORMAT}", folder)
        expected = cls.empty(source)
        made_from = (content.get("fingerprint"), content.get("d_model"), content.get("dtype"))
        if made_from != (expected.fingerprint, expected.d_model, DTYPE):
            raise CacheError(path, "was made from another source (fingerprint, d_model or dtype differ)", folder)
        try:
            return replace(expected, shards=tuple(_shard(shard) for shard in content["shards"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CacheError(path, f"lists a shard that cannot be read ({error!r})", folder) from error

    def save(self, folder: Path) -> None:
        fields = {"format": FORMAT, "dtype": DTYPE, **asdict(self)}
        write_json(folder / NAME, fields)

    def with_shard(self, shard: int, entry: ShardEntry) -> "Manifest":
        return replace(self, shards=(*self.shards[:shard], entry, *self.shards[shard + 1 :]))

    def leading_shards(self, tokens: int) -> tuple[ShardEntry, ...] | None:
        """Return the fewest leading shards that hold `tokens` tokens, or None if all together hold fewer."""
        total = 0
        for number, shard in enumerate(self.shards, start=1):
            total += shard.tokens
            if total >= tokens:
                return self.shards[:number]
        return None

    def covers(self, layers: Sequence[int], tokens: int) -> bool:
        """True if `tokens` tokens of all `layers` are on disk."""
        shards = self.leading_shards(tokens)
        return shards is not None and all(layer in shard.layers for shard in shards for layer in layers)


def _shard(entry: Mapping[str, Any]) -> ShardEntry:
    layers = {int(layer): FileEntry(**file) for layer, file in entry["layers"].items()}
    return ShardEntry(entry["tokens"], FileEntry(**entry["token_file"]), layers)


def canonical_json(fingerprint: Mapping[str, object]) -> str:
    """Return a fingerprint as JSON that does not depend on the order of its keys."""
    return json.dumps(dict(fingerprint), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def source_name(source: Source) -> str:
    """Return the first 16 hex digits of the SHA-256 of the source's fingerprint."""
    return hashlib.sha256(canonical_json(source.fingerprint).encode()).hexdigest()[:16]


def token_path(folder: Path, shard: int) -> Path:
    return folder / "tokens" / f"{shard:05d}.safetensors"


def layer_path(folder: Path, layer: int, shard: int) -> Path:
    return folder / f"layer{layer:02d}" / f"{shard:05d}.bin"
