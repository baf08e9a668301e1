"""Read a complete cache: memory-mapped, without locks and without writing."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xxhash
from jaxtyping import BFloat16, Int16, Int32, Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bisae.activations.manifest import BYTES_PER_VALUE, CacheError, FileEntry, Manifest, layer_path, token_path
from bisae.activations.store import ShardRows


class CachedActivations(ShardRows):
    """Rows 0 ... `tokens` - 1 of some layers of one cache: the fewest leading shards that hold the requested tokens.

    All files are opened at once, so that a later eviction takes nothing away from this reader. Raises CacheError for
    the first file that is missing, has another size or, with `verify`, another checksum.
    """

    in_ram = False

    def __init__(self, folder: Path, manifest: Manifest, layers: Sequence[int], tokens: int, verify: bool) -> None:
        shards = manifest.leading_shards(tokens)
        if shards is None:
            raise ValueError(f"{folder} holds fewer than {tokens} tokens")
        self.name = folder.name
        self.layers = tuple(layers)
        maps: dict[int, list[BFloat16[Tensor, "token d_model"]]] = {layer: [] for layer in self.layers}
        super().__init__(0, np.cumsum([0, *(shard.tokens for shard in shards)]), maps, manifest.d_model)
        self._token_files = []
        for number, shard in enumerate(shards):
            path = token_path(folder, number)
            _check(path, shard.token_file, folder, verify)
            try:
                self._token_files.append(safe_open(path, framework="numpy"))
            except SafetensorError as error:
                raise CacheError(path, f"cannot be read ({error})", folder) from error
            for layer in self.layers:
                path = layer_path(folder, layer, number)
                if shard.layers[layer].size != shard.tokens * self.d_model * BYTES_PER_VALUE:
                    raise CacheError(path, f"is listed with a size that is not {shard.tokens} tokens", folder)
                _check(path, shard.layers[layer], folder, verify)
                maps[layer].append(mapped(path, shard.tokens, self.d_model))

    @property
    def tokens(self) -> int:
        """Number of rows, at least the requested tokens."""
        return int(self.borders[-1])

    @cached_property
    def token_ids(self) -> Int32[np.ndarray, " token"]:
        return self._column("token_ids")

    @cached_property
    def language(self) -> UInt8[np.ndarray, " token"]:
        return self._column("language")

    @cached_property
    def document(self) -> Int32[np.ndarray, " token"]:
        return self._column("document")

    @cached_property
    def position(self) -> Int16[np.ndarray, " token"]:
        return self._column("position")

    def languages(self, rows: Int64[np.ndarray, " token"]) -> UInt8[np.ndarray, " token"]:
        return self.language[rows]

    def window(self, start: int, stop: int, wanted: object, following: object) -> "CachedActivations":
        """All rows are here all the time."""
        return self

    def done(self, rows: object, passed: int) -> None:
        """They stay."""

    def close(self, finished: bool) -> None:
        """The cache stays: other SAEs are trained on it."""

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([file.get_tensor(name) for file in self._token_files])


def _check(path: Path, entry: FileEntry, folder: Path, verify: bool) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CacheError(path, "is listed in the manifest but missing", folder) from error
    if size != entry.size:
        raise CacheError(path, f"has {size} bytes, the manifest says {entry.size}", folder)
    if verify:
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
        if checksum != entry.checksum:
            raise CacheError(path, f"has checksum {checksum}, the manifest says {entry.checksum}", folder)


def mapped(path: Path, tokens: int, d_model: int) -> BFloat16[Tensor, "token d_model"]:
    """Map a file as a tensor.

    The pages are private: a stray write never reaches the disk. Unlike numpy.memmap, the tensor keeps no file
    descriptor; thousands of shards would need too many.
    """
    if tokens == 0:  # an empty file cannot be mapped
        return torch.empty(0, d_model, dtype=torch.bfloat16)
    flat = torch.from_file(str(path), shared=False, size=tokens * d_model, dtype=torch.bfloat16)
    return flat.view(tokens, d_model)
