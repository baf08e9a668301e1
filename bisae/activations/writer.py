"""Write the missing files of one cache folder. The caller holds the folder's lock."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.numpy
import torch
from jaxtyping import BFloat16
from torch import Tensor

from bisae.activations.manifest import BYTES_PER_VALUE, FileEntry, Manifest, ShardEntry, layer_path, token_path
from bisae.activations.store import Progress, Source, TokenShard, computed
from bisae.runtime.atomic import atomic_file

TOKEN_FILE_BYTES_PER_TOKEN = 4 + 1 + 4 + 2
TOKEN_FILE_HEADER_BYTES = 1024  # an upper bound


@dataclass(frozen=True)
class MissingShard:
    """A shard of `tokens` tokens that lacks `layers` and, if it is `new`, its token file too."""

    shard: int
    tokens: int
    layers: tuple[int, ...]
    new: bool

    def bytes(self, d_model: int) -> int:
        """Return the size of its files in bytes, rounded up by at most a KiB."""
        activations = self.tokens * d_model * BYTES_PER_VALUE * len(self.layers)
        return activations + self.new * (TOKEN_FILE_HEADER_BYTES + self.tokens * TOKEN_FILE_BYTES_PER_TOKEN)


def shard_sizes(source: Source, manifest: Manifest, tokens: int, progress: Progress | None = None) -> list[int]:
    """Return the sizes of the fewest leading shards that hold `tokens` tokens, or of all shards; runs no LM."""
    sizes: list[int] = []
    total = 0
    while total < tokens:
        if len(sizes) < len(manifest.shards):
            sizes.append(manifest.shards[len(sizes)].tokens)
        elif (shard := source.tokens(len(sizes))) is not None:
            sizes.append(shard.tokens)
            if progress:
                progress(min(total + shard.tokens, tokens), tokens)
        else:
            break
        total += sizes[-1]
    return sizes


def missing_shards(manifest: Manifest, layers: Sequence[int], sizes: Sequence[int]) -> list[MissingShard]:
    """List the files that are missing until the shards of these `sizes` hold all `layers`."""
    missing = []
    for shard, tokens in enumerate(sizes):
        new = shard >= len(manifest.shards)
        absent = tuple(layer for layer in layers if new or layer not in manifest.shards[shard].layers)
        if absent:
            missing.append(MissingShard(shard, tokens, absent, new))
    return missing


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Delete temporary files and shards not in the manifest: a killed writer or eviction left them."""
    listed = set()
    for shard, entry in enumerate(manifest.shards):
        listed |= {token_path(folder, shard), *(layer_path(folder, layer, shard) for layer in entry.layers)}
    for pattern in (".*.tmp", "tokens/*", "layer*/*"):
        for path in folder.glob(pattern):
            if path not in listed:
                path.unlink()


def write_missing(
    source: Source, folder: Path, manifest: Manifest, missing: Sequence[MissingShard], total: int, progress: Progress
) -> Manifest:
    """Compute and store `missing` in order; return the new manifest of `folder`.

    `progress` gets (tokens done, `total`), in tokens of the requested shards; cached ones count as done.
    """
    done = total - sum(part.tokens for part in missing)
    progress(done, total)
    # One shard is written while the LM computes the next; `result` hands on the thread's error.
    with ThreadPoolExecutor(1, "activation-writer") as thread:
        pending: Future[Manifest] | None = None
        for part in missing:
            tokens = source.tokens(part.shard) if part.new else None
            activations = computed(source, part.shard, part.tokens, part.layers)
            if pending is not None:
                manifest = pending.result()
                progress(done, total)
            pending = thread.submit(_store, folder, manifest, part, tokens, activations)
            done += part.tokens
        if pending is not None:
            manifest = pending.result()
            progress(done, total)
    return manifest


def _store(
    folder: Path,
    manifest: Manifest,
    part: MissingShard,
    tokens: TokenShard | None,
    activations: dict[int, BFloat16[Tensor, "token d_model"]],
) -> Manifest:
    """Write the files of a shard, then the manifest. An incomplete shard needs its whole LM pass again anyway."""
    layers: dict[int, FileEntry] = {}
    if tokens is None:
        token_file = manifest.shards[part.shard].token_file
        layers |= manifest.shards[part.shard].layers
    else:
        token_file = write_file(token_path(folder, part.shard), safetensors.numpy.save(asdict(tokens)))
    for layer, values in activations.items():
        layers[layer] = write_file(layer_path(folder, layer, part.shard), raw_bytes(values))
    manifest = manifest.with_shard(part.shard, ShardEntry(part.tokens, token_file, dict(sorted(layers.items()))))
    manifest.save(folder)
    return manifest


def raw_bytes(values: BFloat16[Tensor, "token d_model"]) -> memoryview:
    """Return the bytes of a layer's file; `bisae.activations.reader.mapped` reads them."""
    return values.view(torch.uint8).numpy().reshape(-1).data


def write_file(path: Path, data: bytes | memoryview) -> FileEntry:
    """Write a file of a cache, complete or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
    return FileEntry.of(data)
