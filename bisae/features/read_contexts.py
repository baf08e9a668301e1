"""Chosen contexts: the activations before TopK at their tokens, from a second reading of the text."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import torch
from jaxtyping import BFloat16, Float32, Int16, Int32, Int64, UInt8
from torch import Tensor

from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.contexts import number_within
from bisae.features.steps import Steps, in_order_of_pairs, stored
from bisae.features.tokens import Tokens
from bisae.runtime.threads import in_order
from bisae.sae import SparseAutoencoder

ROWS = 2**13  # that are normalised at once
VALUES = 2**21  # activations of contexts that are looked at at once
IN_RAM = 2**29  # bytes of activations of contexts; more are kept in a file until they are scaled


@dataclass(frozen=True, eq=False)
class FeatureContexts:
    """The contexts of all latents, grouped by latent.

    `values[offsets[c]:offsets[c + 1]]` are the values of the tokens in context c, as the v1 code stores them: 0 where
    the activation before TopK is negative, else ceil(10 activation / largest activation in the latent's contexts).
    `peak` is the position of the largest value, the first one if several are equal. `activation` is the activation
    before TopK at the peak.
    """

    latent: Int64[np.ndarray, " context"]
    sequence: Int32[np.ndarray, " context"]
    peak: Int16[np.ndarray, " context"]
    activation: Float32[np.ndarray, " context"]
    offsets: Int64[np.ndarray, " context_and_one"]
    values: UInt8[np.ndarray, " value"]

    @property
    def rank(self) -> Int16[np.ndarray, " context"]:
        """The place of each context among the contexts of its latent, from 0."""
        return number_within(self.latent).astype(np.int16)


@dataclass(frozen=True, eq=False)
class WantedContexts:
    """Pairs (latent, sequence) of a cell whose activations before TopK are wanted.

    Attributes:
        layer: The layer that the SAE reads.
        sae: The SAE.
        latent: The latent of each pair.
        sequence: The sequence of each pair.
        contexts: The number of pairs, the first ones, that are contexts of the whole text, grouped by latent. Of the
            others only the steps are kept.
        scratch: A folder for activations that need more memory than there is, 4 bytes for each token of a context.
    """

    layer: int
    sae: SparseAutoencoder
    latent: Int64[np.ndarray, " pair"]
    sequence: Int32[np.ndarray, " pair"]
    contexts: int
    scratch: Path


def read_contexts(reading: AnalysedActivations, cells: Sequence[WantedContexts]) -> list[tuple[FeatureContexts, Steps]]:
    """Encode the candidates of each cell again, to get the activations before TopK at all of their tokens.

    The text is read once for all cells. What a cell gets does not depend on the others.
    """
    with ExitStack() as files:
        readers = []
        for cell in cells:
            file = files.enter_context(SpooledTemporaryFile(IN_RAM // len(cells), dir=str(cell.scratch)))
            readers.append(_Reader(reading.tokens, cell, file))
        layers = sorted({cell.layer for cell in cells})
        chosen = np.zeros(len(reading.tokens.borders) - 1, bool)
        for cell in cells:
            chosen[cell.sequence] = True
        for window, values in reading.rows(np.flatnonzero(np.repeat(chosen, np.diff(reading.tokens.borders))), layers):
            for reader in readers:
                reader.add(window, values[reader.cell.layer])
        return [reader.finish() for reader in readers]


class _Reader:
    """Reads the candidates of one cell, in any order of pairs."""

    def __init__(self, tokens: Tokens, cell: WantedContexts, file: SpooledTemporaryFile[bytes]) -> None:
        self.tokens, self.cell, self.file = tokens, cell, file
        self.lengths = np.diff(tokens.borders)[cell.sequence]
        self.by_sequence = np.argsort(cell.sequence, kind="stable")
        self.used, self.starts = np.unique(cell.sequence[self.by_sequence], return_index=True)
        self.ends = np.append(self.starts[1:], len(cell.sequence))
        self.begun: list[Tensor] = []  # of a sequence that a window or a block of rows cuts
        self.found: list[tuple[np.ndarray, ...]] = []
        self.pieces: list[np.ndarray] = []

    def add(self, window: Int64[np.ndarray, " row"], values: BFloat16[Tensor, "row d_model"]) -> None:
        """Read the cell's rows among those of a window; windows come in the order of the text."""
        sequence = self.tokens.sequence[window]
        if len(self.used):
            place = np.minimum(np.searchsorted(self.used, sequence), len(self.used) - 1)
            own = np.flatnonzero(self.used[place] == sequence)
            if len(own) < len(window):
                window, values = window[own], values[torch.from_numpy(own)]
            for start in range(0, len(window), ROWS):
                self._add(window[start : start + ROWS], values[start : start + ROWS])

    def _add(self, rows: Int64[np.ndarray, " row"], values: BFloat16[Tensor, "row d_model"]) -> None:
        batch: list[tuple[int, np.ndarray, Tensor]] = []  # length and pairs of a sequence, and its rows
        for number, inputs in self._sequences(rows, values):
            place, length = np.searchsorted(self.used, number), len(inputs)
            pairs = self.by_sequence[self.starts[place] : self.ends[place]]
            most = max(1, VALUES // length)
            batch += [(length, pairs[low : low + most], inputs) for low in range(0, len(pairs), most)]
        batch.sort(key=itemgetter(0))

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            while batch:
                longest, size, part = batch[-1][0], 0, []
                while batch and batch[-1][0] > 0.8 * longest and size <= VALUES:
                    part.append(batch.pop())
                    size += len(part[-1][1]) * longest
                _, several, inputs_of = zip(*part, strict=True)
                latents = [self.cell.latent[some] for some in several]
                yield np.concatenate(several), _pre_activations(self.cell.sae, latents, inputs_of)

        for steps, whole, activations in in_order(self._read, parts()):
            self.found.append(steps)
            self.file.write(activations.data)
            if len(whole):
                self.pieces.append(whole)

    def _sequences(
        self, rows: Int64[np.ndarray, " row"], values: BFloat16[Tensor, "row d_model"]
    ) -> Iterator[tuple[int, Tensor]]:
        """The sequences that end in these rows, and their rows as the encoder gets them."""
        sae, borders = self.cell.sae, self.tokens.borders
        centred = (sae.normalize(values.to(sae.W_enc.device))[0] - sae.b_pre).detach()
        numbers, firsts = np.unique(self.tokens.sequence[rows], return_index=True)
        for number, first, stop in zip(numbers, firsts, [*firsts[1:], len(rows)], strict=True):
            self.begun.append(centred[first:stop])
            if rows[stop - 1] + 1 == borders[number + 1]:
                whole = self.begun[0] if len(self.begun) == 1 else torch.cat(self.begun)
                self.begun = []
                yield int(number), whole
        if self.begun:  # of the block only its end has to be kept
            self.begun[-1] = self.begun[-1].clone()

    def _read(
        self, part: tuple[Int64[np.ndarray, " some"], Float32[np.ndarray, "some token"]]
    ) -> tuple[tuple[np.ndarray, ...], Int64[np.ndarray, " context"], Float32[np.ndarray, " value"]]:
        """The steps of pairs, and of contexts the activations; -inf stands after the end of a sequence."""
        pairs, activations = part
        step = np.ones(activations.shape, bool)
        largest = np.maximum.accumulate(activations, axis=1)
        np.greater(activations[:, 1:], largest[:, :-1], out=step[:, 1:])
        counts, at = np.count_nonzero(step, axis=1), np.flatnonzero(step)
        position = at - np.repeat(np.arange(len(pairs)) * activations.shape[1], counts)
        whole = np.flatnonzero(pairs < self.cell.contexts)
        values, lengths = activations[whole], self.lengths[pairs[whole]]
        if (lengths < activations.shape[1]).any():
            values = values[np.arange(activations.shape[1]) < lengths[:, None]]
        return (pairs, counts, position.astype(np.int16), activations.ravel()[at]), pairs[whole], values.ravel()

    def finish(self) -> tuple[FeatureContexts, Steps]:
        latent, sequence, contexts = self.cell.latent, self.cell.sequence, self.cell.contexts
        steps = in_order_of_pairs(latent, self.found)
        self.found = []
        scale = steps.scale(np.arange(len(latent)) < contexts)
        offsets = np.append(0, np.cumsum(self.lengths[:contexts]))
        scaled = np.empty(offsets[-1], np.uint8)
        self.file.seek(0)
        for pairs in self.pieces:
            long = self.lengths[pairs]
            values = np.frombuffer(self.file.read(4 * int(long.sum())), np.float32)
            place = np.arange(len(values)) + np.repeat(offsets[pairs] - (np.cumsum(long) - long), long)
            scaled[place] = stored(values, np.repeat(scale[latent[pairs]], long))
        self.file.close()
        first = steps.first_largest(np.arange(contexts), scale)
        of_text = latent[:contexts], sequence[:contexts], steps.position[first], steps.value[first]
        return FeatureContexts(*of_text, offsets, scaled), steps


@torch.no_grad()
def _pre_activations(
    sae: SparseAutoencoder, latents: Sequence[Int64[np.ndarray, " _"]], inputs: Sequence[Tensor]
) -> Float32[np.ndarray, "all longest"]:
    """Of each sequence's `inputs` [token d_model] for its latents, below each other."""
    longest, number = max(map(len, inputs)), sum(map(len, latents))
    out, place = sae.W_enc.new_full((number, longest), -torch.inf), 0
    for some, rows in zip(latents, inputs, strict=True):
        here = torch.from_numpy(some).to(sae.W_enc.device)
        own = out[place : place + len(some), : len(rows)]
        torch.mm(sae.W_enc[here], rows.T, out=own)
        own += sae.b_enc[here, None]
        place += len(some)
    return out.float().cpu().numpy()
