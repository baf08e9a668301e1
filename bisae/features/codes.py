"""The codes of an SAE on an analysed text: files sorted by latent, so that a block of latents is read by itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float, Float32, Int64, Integer
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
    rows: Integer[np.ndarray, " entry"]
    values: Float32[np.ndarray, " entry"]

    @property
    def latents(self) -> int:
        """The number of latents in the block."""
        return len(self.offsets) - 1

    def latent_of_entry(self) -> Int64[np.ndarray, " entry"]:
        """The latent of each entry, counted from the block's first."""
        return np.repeat(np.arange(self.latents), np.diff(self.offsets))

    def parts(self) -> "Iterator[Firings]":
        """Cut the block in parts of at most `PART` firings. A latent with more is a part by itself."""
        for first, after in _cuts(self.offsets, PART):
            low, high = self.offsets[[first, after]]
            offsets = self.offsets[first : after + 1] - low
            yield Firings(self.first + first, offsets, self.rows[low:high], self.values[low:high])


ENTRIES = 2**24  # of a block of latents held in RAM: 128 MiB
PART = 2**20  # entries that are worked on at once, so that what is computed from them fits the processor's caches


def _cuts(offsets: Int64[np.ndarray, " latent_and_one"], most: int) -> Iterator[tuple[int, int]]:
    """Cut latents, each time before the one with which there would be more than `most` entries."""
    first = 0
    while first < len(offsets) - 1:
        fit = int(np.searchsorted(offsets, offsets[first] + most, side="right")) - 1
        yield first, max(first + 1, fit)
        first = max(first + 1, fit)


@dataclass(frozen=True)
class CodesFolder:
    """The codes of one SAE on one text. Each window of rows has a file: 4 bytes per firing and 6 bytes per latent.

    A firing is its row in the window and its value in half precision (`half_precision`); entries of value 0 are left
    out. Each file is complete or absent, so that an interrupted pass can continue. Files of earlier versions, of twice
    the size, are read as the same values.
    """

    folder: Path
    latents: int

    def path(self, start: int) -> Path:
        """The file of the window that starts at row `start`."""
        return self.folder / f"{start:012d}.safetensors"

    def write(self, start: int, encoded: "Encoded") -> None:
        """Write the codes of the window that starts at row `start`."""
        firings = encoded.firings
        columns = {
            "maximum": encoded.maximum,
            "counts": _small(np.diff(firings.offsets)),
            "rows": _small(firings.rows - start),
            "values": half_precision(firings.values),
        }
        with atomic_file(self.path(start)) as temporary:
            safetensors.numpy.save_file(columns, temporary)

    def finish(self, starts: list[int]) -> None:
        """Mark the codes as complete: the windows that start at `starts` are written."""
        write_json(self.folder / "codes.json", {"latents": self.latents, "starts": starts})

    def delete(self) -> None:
        """Delete the codes. A process that is killed meanwhile leaves some windows of an incomplete pass."""
        (self.folder / "codes.json").unlink(missing_ok=True)
        for file in self.folder.glob("*.safetensors"):
            file.unlink(missing_ok=True)

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
        counts = sum(np.diff(_offsets(file)) for _, file in self._files())
        for first, after in _cuts(np.append(0, np.cumsum(counts)), ENTRIES):
            yield self.block(first, after)

    def block(self, first: int, after: int, stop: int | None = None) -> Firings:
        """The firings of latents `first` to `after` - 1; if `stop` is given, only those on rows below it."""
        pieces = []
        for start, file in self._files():
            if stop is not None and start >= stop:
                break
            offsets = _offsets(file)[first : after + 1]
            if offsets[0] == offsets[-1]:  # safetensors cuts no empty slice
                continue
            rows, values = (file.get_slice(name)[offsets[0] : offsets[-1]] for name in ("rows", "values"))
            counts = np.diff(offsets)
            if stop is not None and stop - start <= rows.max():
                kept = rows < stop - start
                counts = np.diff(np.append(0, np.cumsum(kept))[offsets - offsets[0]])
                rows, values = rows[kept], values[kept]
            pieces.append((start, counts, rows, half_precision(values)))
        offsets = np.append(
            0, np.cumsum(sum((counts for _, counts, _, _ in pieces), np.zeros(after - first, np.int64)))
        )
        last = max((start for start, *_ in pieces), default=0)
        kind = np.int32 if last < 2**31 - 2**24 else np.int64
        row, value = np.empty(offsets[-1], kind), np.empty(offsets[-1], np.float32)
        free = offsets[:-1].copy()  # the next place of each latent: files are in the order of rows
        for start, counts, rows, values in pieces:
            place = np.arange(len(rows)) + np.repeat(free - (np.cumsum(counts) - counts), counts)
            row[place] = rows.astype(kind) + kind(start)
            value[place] = values
            free += counts
        return Firings(first, offsets, row, value)

    def _files(self) -> Iterator[tuple[int, safe_open]]:
        if self.finished:
            starts = json.loads((self.folder / "codes.json").read_text(encoding="utf-8"))["starts"]
        else:  # the first windows, where no others are asked for
            starts = sorted(int(file.stem) for file in self.folder.glob("*.safetensors"))
        for start in starts:
            with safe_open(self.path(start), framework="numpy") as file:
                yield start, file


def _offsets(file: safe_open) -> Int64[np.ndarray, " latent_and_one"]:
    if "offsets" in file.keys():  # noqa: SIM118 of an earlier version
        offsets: np.ndarray = file.get_tensor("offsets")
        return offsets
    return np.append(0, np.cumsum(file.get_tensor("counts"), dtype=np.int64))


def _small(numbers: Integer[np.ndarray, " number"]) -> Integer[np.ndarray, " number"]:
    """The same numbers in 16 bits, or in 32 where they do not fit."""
    return numbers.astype(np.uint16 if numbers.max(initial=0) < 2**16 else np.uint32)


def half_precision(values: Float[np.ndarray, " entry"]) -> Float[np.ndarray, " entry"]:
    """Round positive values to float16, relative error at most 2^-11 from 2^-14 on; none becomes 0.

    Where one is too large for float16, all stay float32.
    """
    if values.dtype == np.float16 or values.max(initial=0) > np.finfo(np.float16).max:
        return values
    return np.maximum(values.astype(np.float16), np.finfo(np.float16).smallest_subnormal)


@dataclass(frozen=True, eq=False)
class Encoded:
    """The codes of some rows, and the largest pre-activation of each latent on them (0 if it is negative)."""

    firings: Firings
    maximum: Float32[np.ndarray, " latent"]


@torch.no_grad()
def encode(sae: SparseAutoencoder, start: int, activations: Float[Tensor, "token d_model"]) -> Encoded:
    """Encode the `activations` of the rows `start`, `start` + 1, ... and sort the codes by latent.

    Raises ValueError if some are not finite: the maximum of every latent would be NaN, and no latent have a context.
    """
    maximum = sae.b_enc.new_zeros(sae.latents)
    parts = []
    step, done = max(1, DENSE // sae.latents), start
    for rows in activations.to(sae.W_enc.device).split(step):
        dense = sae.pre_activations(sae.normalize(rows)[0])
        if not ((largest := dense.amax(0)) < torch.inf).all():  # nor where it is NaN
            where = f"of tokens {done} to {done + len(rows) - 1} of the text"
            raise ValueError(f"activations {where}, or the SAE's weights, are not finite: its features are unknown")
        maximum = torch.maximum(maximum, largest)
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
