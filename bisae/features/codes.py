"""The codes of an SAE on an analysed text: files sorted by latent, so that a block of latents is read by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float, Float32, Int64
from safetensors import safe_open
from torch import Tensor

from bisae.runtime.atomic import atomic_file, write_json
from bisae.sae import SparseAutoencoder
from bisae.sae.encoder import DENSE


@dataclass(frozen=True, eq=False)
class Firings:
    """All firings of a block of latents on one text.

    Entries `offsets[i]:offsets[i + 1]` belong to latent `first + i`: it fires on token `rows[e]` with activation
    `values[e] > 0` (of unit-norm inputs). Rows ascend within a latent.
    """

    first: int
    offsets: Int64[np.ndarray, " latent_and_one"]
    rows: Int64[np.ndarray, " entry"]
    values: Float32[np.ndarray, " entry"]

    @property
    def latents(self) -> int:
        """The number of latents in the block."""
        return len(self.offsets) - 1

    def latent_of_entry(self) -> Int64[np.ndarray, " entry"]:
        """The latent of each entry, counted from the block's first."""
        return np.repeat(np.arange(self.latents), np.diff(self.offsets))


ENTRIES = 2**24  # of a block of latents held in RAM: 0.5 GiB with what is computed from them


@dataclass(frozen=True)
class CodesFolder:
    """The codes of one SAE on one text. Each window of rows has a file: 8 bytes per firing and 4 bytes per latent.

    Entries of value 0 are left out. Each file is complete or absent, so that an interrupted pass can continue.
    """

    folder: Path
    latents: int

    def path(self, start: int) -> Path:
        """The file of the window that starts at row `start`."""
        return self.folder / f"{start:012d}.safetensors"

    def write(self, start: int, encoded: "Encoded") -> None:
        """Write the codes of the window that starts at row `start`."""
        with atomic_file(self.path(start)) as temporary:
            safetensors.numpy.save_file(
                {
                    "maximum": encoded.maximum,
                    "offsets": encoded.firings.offsets,
                    "rows": (encoded.firings.rows - start).astype(np.uint32),
                    "values": encoded.firings.values,
                },
                temporary,
            )

    def finish(self, starts: list[int]) -> None:
        """Mark the codes as complete: the windows that start at `starts` are written."""
        write_json(self.folder / "codes.json", {"latents": self.latents, "starts": starts})

    @property
    def finished(self) -> bool:
        return (self.folder / "codes.json").is_file()

    def maximum(self) -> Float32[np.ndarray, " latent"]:
        """Each latent's largest activation before ReLU and TopK, and 0 if it is negative, as in the v1 code."""
        largest = np.zeros(self.latents, np.float32)
        for _, file in self._files():
            np.maximum(largest, file.get_tensor("maximum"), out=largest)
        return largest

    def blocks(self) -> Iterator[Firings]:
        """All latents, in blocks of at most `ENTRIES` firings. A latent with more firings is a block by itself."""
        counts = sum(np.diff(file.get_tensor("offsets")) for _, file in self._files())
        first = 0
        while first < self.latents:
            total = np.cumsum(counts[first:])
            fit = int(np.searchsorted(total, ENTRIES, side="right"))
            after = first + min(max(1, fit), len(total))
            yield self.block(first, after)
            first = after

    def block(self, first: int, after: int, stop: int | None = None) -> Firings:
        """The firings of latents `first` to `after` - 1; if `stop` is given, only those on rows below it."""
        kind = _smallest(after - first)
        latents, rows, values = [np.empty(0, kind)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for start, file in self._files():
            if stop is not None and start >= stop:
                break
            offsets = file.get_tensor("offsets")[first : after + 1]
            if offsets[0] == offsets[-1]:  # safetensors cuts no empty slice
                continue
            latents.append(np.repeat(np.arange(after - first, dtype=kind), np.diff(offsets)))
            rows.append(file.get_slice("rows")[offsets[0] : offsets[-1]].astype(np.int64) + start)
            values.append(file.get_slice("values")[offsets[0] : offsets[-1]])
        latent, row, value = np.concatenate(latents), np.concatenate(rows), np.concatenate(values)
        if stop is not None:
            kept = row < stop
            latent, row, value = latent[kept], row[kept], value[kept]
        order = np.argsort(latent, kind="stable")  # files are in the order of rows
        offsets = np.searchsorted(latent[order], np.arange(after - first + 1))
        return Firings(first, offsets, row[order], value[order])

    def _files(self) -> Iterator[tuple[int, safe_open]]:
        for start in json.loads((self.folder / "codes.json").read_text(encoding="utf-8"))["starts"]:
            with safe_open(self.path(start), framework="numpy") as file:
                yield start, file


@dataclass(frozen=True, eq=False)
class Encoded:
    """The codes of some rows, and the largest pre-activation of each latent on them (0 if it is negative)."""

    firings: Firings
    maximum: Float32[np.ndarray, " latent"]


@torch.no_grad()
def encode(sae: SparseAutoencoder, start: int, activations: Float[Tensor, "token d_model"]) -> Encoded:
    """Encode the `activations` of the rows `start`, `start` + 1, ... and sort the codes by latent."""
    maximum = sae.b_enc.new_zeros(sae.latents)
    parts = []
    step, done = max(1, DENSE // sae.latents), start
    for rows in activations.to(sae.W_enc.device).split(step):
        dense = sae.pre_activations(sae.normalize(rows)[0])
        maximum = torch.maximum(maximum, dense.amax(0))
        codes = sae.select(dense)
        fires = codes.values > 0
        row_of_entry = codes.token_of_entry()[fires].to(torch.int64) + done
        parts.append((codes.indices[fires].to(torch.int32), row_of_entry, codes.values[fires].float()))
        done += len(rows)
    latent, row, value = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    order = np.argsort(latent.astype(_smallest(sae.latents)), kind="stable")
    offsets = np.searchsorted(latent[order], np.arange(sae.latents + 1))
    return Encoded(Firings(0, offsets, row[order], value[order]), maximum.float().cpu().numpy())


def _smallest(latents: int) -> type[np.integer]:
    """The smallest integer type for the numbers of `latents`: 16 bits sort several times as fast as 32."""
    return np.uint16 if latents <= 2**16 else np.int32
