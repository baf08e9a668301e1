"""The cells of one LM checkpoint on sentence pairs: peaks of latents for alignment, and retrieval of translations."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float32, Int64, Integer
from scipy.sparse import csr_array
from torch import Tensor

from bisae.analysis.feature_table import Side
from bisae.analysis.rules import RetrievalRule
from bisae.analysis.summary import Metrics
from bisae.corpus.pairs import Sentences
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import encode
from bisae.features.measures.alignment import sentence_peaks
from bisae.features.measures.retrieval import Vectors, pools, retrieve
from bisae.metrics.intervals import share_interval
from bisae.sae import SparseAutoencoder

log = logging.getLogger(__name__)

STREAM, CODES, BOTH = "stream", "codes", "both"
COLUMNS = (
    *("layer", "space", "centred", "direction", "pairs", "candidates", "chance"),
    *("value", "low", "high", "shuffled"),
)


class OnPairs(NamedTuple):
    """One cell on sentence pairs.

    `sides`: a language each; None without pairs. `retrieval`: columns as in COLUMNS, a row for each layer whose stream
    was read and for the cell's codes, with and without the languages' means, in each direction and in both; no rows if
    there are too few pairs. `low` and `high` are 95 % over pairs (Wilson).
    """

    sides: Sequence[Side] | None
    retrieval: pd.DataFrame

    def metrics(self, layer: int) -> Metrics:
        """Retrieval both ways at the cell's layer, the languages' means removed, with its interval over pairs."""
        table = self.retrieval
        rows = table[(table["layer"] == layer) & table["centred"].astype(bool) & (table["direction"] == BOTH)]
        found: Metrics = {}
        for row in rows.to_dict("records"):
            name = f"retrieval_{row['space']}"
            found |= {name: row["value"], f"{name}_null": row["shuffled"]}
            found |= {f"{name}_doc_low": row["low"], f"{name}_doc_high": row["high"]}
        return found


NO_RETRIEVAL = pd.DataFrame(columns=list(COLUMNS))
NO_PAIRS = OnPairs(None, NO_RETRIEVAL)


@dataclass(frozen=True, eq=False)
class PairsRead:
    """Sentence pairs as one LM checkpoint reads them.

    Attributes:
        reading: the activations, at `layers` and at those of the cells.
        words: true for the vocabulary items that are words.
        layers: those whose stream retrieves.
    """

    reading: AnalysedActivations
    sentences: Sentences
    words: Bool[np.ndarray, " vocabulary"]
    rule: RetrievalRule
    layers: Sequence[int]
    seed: int
    _of_streams: list[pd.DataFrame] = field(default_factory=list, init=False)

    def of(self, cells: Sequence[tuple[int, SparseAutoencoder]]) -> list[OnPairs]:
        """Read the pairs once for all `cells` (layer, SAE); the first time also at all layers that retrieve."""
        wanted = self.layers if not self._of_streams and self.retrieves else ()
        sentences, width = 2 * self.sentences.pairs, self.reading.activations.d_model
        streams = {number: torch.zeros(sentences, width) for number in wanted}
        parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in cells]
        layers = sorted({*(layer for layer, _ in cells), *streams})
        for rows, values in self.reading.rows(np.arange(len(self.reading.tokens)), layers):
            for (layer, sae), part in zip(cells, parts, strict=True):
                firings = encode(sae, int(rows[0]), values[layer]).firings
                part.append((firings.rows, firings.latent_of_entry(), firings.values))
            for number, sums in streams.items():
                self._add(sums, rows, values[number])
        for number, sums in streams.items():
            means = sums.double().numpy() / np.maximum(self._counts, 1)[:, None]
            self._of_streams.append(self._retrieval(number, STREAM, *np.split(means, 2)))
        columns = [[np.concatenate(column) for column in zip(*part, strict=True)] for part in parts]
        return [self._of_cell(layer, sae.latents, *found) for (layer, sae), found in zip(cells, columns, strict=True)]

    def _of_cell(self, layer: int, latents: int, row: np.ndarray, latent: np.ndarray, value: np.ndarray) -> OnPairs:
        sides = self._sides(row, latent, value, latents)
        if not self.retrieves:
            return OnPairs(sides, NO_RETRIEVAL)
        kept = self._is_word[row]
        sentence = self._sentence[row[kept]]
        weight = value[kept].astype(np.float64) / self._counts[sentence]
        codes = csr_array((weight, (sentence, latent[kept])), shape=(2 * self.sentences.pairs, latents))
        own = self._retrieval(layer, CODES, codes[: self.sentences.pairs], codes[self.sentences.pairs :])
        return OnPairs(sides, pd.concat([*self._of_streams, own], ignore_index=True))

    @property
    def retrieves(self) -> bool:
        """True if the pairs that have words in both languages fill a pool of candidates."""
        return len(self._pools) > 0

    def close(self) -> None:
        """Free the activations and the LM."""
        self.reading.close()

    @cached_property
    def _is_word(self) -> Bool[np.ndarray, " token"]:
        return self.words[self.reading.tokens.token_ids]

    @cached_property
    def _sentence(self) -> Int64[np.ndarray, " token"]:
        """The sentence of each token: those of the first language, then those of the second, each in order of pairs."""
        tokens = self.reading.tokens
        return tokens.language.astype(np.int64) * self.sentences.pairs + tokens.document

    @cached_property
    def _counts(self) -> Int64[np.ndarray, " sentence"]:
        """The number of words of each sentence."""
        return np.bincount(self._sentence[self._is_word], minlength=2 * self.sentences.pairs)

    @cached_property
    def _pools(self) -> Int64[np.ndarray, "pool candidate"]:
        spoken = np.flatnonzero((self._counts.reshape(2, -1) > 0).all(0))
        if self.rule.candidates is None:
            return np.empty((0, 0), np.int64)
        dealt = spoken[pools(len(spoken), self.rule.candidates, self.seed)]
        if not len(dealt):
            log.warning(
                "retrieval.candidates=%d: only %d sentence pairs have words in both languages, so retrieval of "
                "translations is left out; fewer candidates measure it, by another chance value",
                self.rule.candidates,
                len(spoken),
            )
        return dealt

    def _add(self, sums: Float32[Tensor, "sentence d_model"], rows: np.ndarray, values: Tensor) -> None:
        """Add the stream at words to the sum of their sentence."""
        word = self._is_word[rows]
        sums.index_add_(0, torch.from_numpy(self._sentence[rows[word]]), values[torch.from_numpy(word)].float())

    def _retrieval(self, layer: int, space: str, left: Vectors, right: Vectors) -> pd.DataFrame:
        """A row for each direction, with and without the languages' means. Vectors: of all pairs, in order."""
        rows = []
        spoken = np.sort(self._pools.ravel())
        place = np.searchsorted(spoken, self._pools)
        for centred in (True, False):
            found = retrieve(left[spoken], right[spoken], place, centred)
            one, other = self.sentences.languages
            hits = {f"{one}-{other}": found.forward, f"{other}-{one}": found.backward}
            hits[BOTH] = (found.forward + found.backward) / 2
            for direction, hit in hits.items():
                interval = share_interval(round(float(hit.sum())), len(hit))
                about = (layer, space, centred, direction, len(hit), self._pools.shape[1], 1 / self._pools.shape[1])
                rows.append((*about, float(hit.mean()), *interval, float(found.shuffled.mean())))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _sides(
        self,
        row: Int64[np.ndarray, " entry"],
        latent: Integer[np.ndarray, " entry"],
        value: Float32[np.ndarray, " entry"],
        latents: int,
    ) -> list[Side]:
        """For each language, the largest activation of each latent in each sentence, on words and on other tokens."""
        tokens, word = self.reading.tokens, self._is_word[row]
        sides = []
        for number in range(len(self.sentences.languages)):
            here = tokens.language[row] == number
            sentence, shape = tokens.document[row].astype(np.int64), (self.sentences.pairs, latents)
            peaks = [
                sentence_peaks(sentence[kept], latent[kept], value[kept], shape) for kept in (here & word, here & ~word)
            ]
            sides.append(Side(*peaks))
        return sides
