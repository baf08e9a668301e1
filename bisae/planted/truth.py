"""The truth of a planted world: all features of its LM, and what they do on a text.

A feature is active at a token if it is there (its step and layer are in range), the token, or the one before it
(`lag`), is one of its tokens, and a draw is below its `presence`. A draw is a hash of the sequence up to the token: it
is the same at every step, at every layer, and however the text is cut into batches.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Integer, UInt8, UInt64
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array

from bisae.runtime.atomic import atomic_file

TRUTH = "truth.safetensors"
CODES = "codes"  # the hook that reads true codes in place of activations
# The kinds of features, in the order of `Truth.kind`. What each is, is in docs/planted.md.
WORD, GRAMMAR, MEANING, MIXED, CONTEXTUAL, SINGLE = range(6)
KINDS = ("word", "grammar", "meaning", "mixed", "contextual", "single")
NEVER = 2**31 - 1  # death step of a feature that stays
SHARED = -1  # language of a token that all languages have
NONE = -1  # no parent, no partner

STEP = np.uint64(0x9E3779B97F4A7C15)
_MAGNITUDE, _TOGETHER, _NOISE = (np.uint64(salt) for salt in (1, 2, 3))


def scrambled(state: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """A hash of 64 bits (SplitMix64, Steele et al. 2014)."""
    state = state + STEP
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform(state: UInt64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """A number in [0, 1) from a hash."""
    return (state >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True, eq=False)
class Truth:
    """All features of a planted LM, and the vocabulary that they are about.

    Args:
        directions: Unit vector of each feature, the same at all steps and layers.
        kind: Index into `KINDS`.
        of_language: The languages that a feature is of: one for a one-language feature, several for a bilingual one.
        presence: Probability that a feature is active where its tokens of a language stand.
        tokens, offsets: The tokens of feature f are `tokens[offsets[f]:offsets[f + 1]]`, in ascending order.
        lag: 0 if a feature fires on its tokens, 1 if it fires on the token after each.
        parent: Feature without which a nested one is never active, or `NONE`. Its tokens include those of the child.
        partner: Feature of the same tokens with which the draws of a correlated one are shared, with the probability
            `correlation`; or `NONE`.
        strength: Mean activation of a feature where it is active.
        birth, death: First step at which a feature is there, and first step at which it no longer is (`NEVER`).
        first_layer, last_layer: Layers at which it is there, both included.
        token_language: Index into `languages`, or `SHARED`, by token id.
        token_meaning: Number of the meaning of each token; tokens of one number mean the same, in any language.
        languages: Codes of the languages.
        steps: All steps of the LM, ascending.
        layers: Number of the deepest layer; layer 0 are the embeddings.
        noise: Root mean square length of the noise in an activation.
        spread: Activations are uniform in `strength` x (1 - `spread`) ... (1 + `spread`).
        correlation: See `partner`.
        seed: Of all draws.
        world: The settings that the world was made from, as JSON values.
    """

    directions: Float32[np.ndarray, "feature d_model"]
    kind: UInt8[np.ndarray, " feature"]
    of_language: Bool[np.ndarray, "feature language"]
    presence: Float64[np.ndarray, "feature language"]
    tokens: Int32[np.ndarray, " entry"]
    offsets: Int64[np.ndarray, " feature_and_one"]
    lag: UInt8[np.ndarray, " feature"]
    parent: Int32[np.ndarray, " feature"]
    partner: Int32[np.ndarray, " feature"]
    strength: Float64[np.ndarray, " feature"]
    birth: Int32[np.ndarray, " feature"]
    death: Int32[np.ndarray, " feature"]
    first_layer: Int32[np.ndarray, " feature"]
    last_layer: Int32[np.ndarray, " feature"]
    token_language: Int32[np.ndarray, " vocabulary"]
    token_meaning: Int32[np.ndarray, " vocabulary"]
    languages: tuple[str, ...]
    steps: tuple[int, ...]
    layers: int
    noise: float
    spread: float
    correlation: float
    seed: int
    world: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write arrays as safetensors and everything else as JSON in their metadata."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in arrays}
        with atomic_file(path) as temporary:
            save_file(arrays, temporary, metadata={"truth": json.dumps(fields)})

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """Read what `save` wrote. Raises FileNotFoundError, SafetensorError or KeyError."""
        with safe_open(path, "numpy") as file:
            fields = json.loads(file.metadata()["truth"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        fields |= {name: tuple(fields[name]) for name in ("languages", "steps")}
        return cls(**arrays, **fields)

    @property
    def features(self) -> int:
        return len(self.kind)

    def tokens_of(self, feature: int) -> Int32[np.ndarray, " token"]:
        """The token ids of a feature."""
        return self.tokens[self.offsets[feature] : self.offsets[feature + 1]]

    def there(self, step: int, layer: int) -> Bool[np.ndarray, " feature"]:
        """Which features there are at a step and layer, on whatever text."""
        born = (self.birth <= step) & (step < self.death)
        return born & (self.first_layer <= layer) & (layer <= self.last_layer)

    def codes(
        self, token_ids: Integer[np.ndarray, " token"], position: Integer[np.ndarray, " token"], step: int, layer: int
    ) -> csr_array:
        """The true sparse codes [token feature] of whole sequences, one after the other.

        In the result `data` are the activations, `indices` the features, ascending, and `indptr` the offsets by token.

        Args:
            position: Position of each token in its sequence, 0 for the first.
        """
        prefix = self._prefixes(token_ids, position)
        row, feature = self._candidates(token_ids, position, self.there(step, layer))
        kept = self._drawn(prefix, token_ids, row, feature)
        nested = np.flatnonzero(kept & (self.parent[feature] != NONE))
        kept[nested] = self._drawn(prefix, token_ids, row[nested], self.parent[feature[nested]])
        row, feature = row[kept], feature[kept]
        magnitude = uniform(scrambled(prefix[row] ^ self._keys(_MAGNITUDE)[feature]))
        values = self.strength[feature] * (1 + self.spread * (2 * magnitude - 1))
        return csr_array((values, (row, feature)), shape=(len(token_ids), self.features))

    def stream(
        self, token_ids: Integer[np.ndarray, " token"], position: Integer[np.ndarray, " token"], step: int, layer: int
    ) -> Float64[np.ndarray, "token d_model"]:
        """The activations of whole sequences: the sum of the directions by the true codes, and noise."""
        summed = self.codes(token_ids, position, step, layer) @ self.directions.astype(np.float64)
        if self.noise:
            summed += self._noise(self._prefixes(token_ids, position), step, layer)
        return summed

    @cached_property
    def _by_token(self) -> tuple[csr_array, csr_array]:
        """For each lag, which features [vocabulary feature] a token is one of."""
        feature = np.repeat(np.arange(self.features), np.diff(self.offsets))
        parts = []
        for lag in range(2):
            entry = self.lag[feature] == lag
            where = self.tokens[entry], feature[entry]
            parts.append(
                csr_array((np.ones(entry.sum(), bool), where), shape=(len(self.token_language), self.features))
            )
        return parts[0], parts[1]

    def _candidates(
        self, token_ids: Integer[np.ndarray, " token"], position: Integer[np.ndarray, " token"], there: np.ndarray
    ) -> tuple[Int64[np.ndarray, " entry"], Int64[np.ndarray, " entry"]]:
        """Tokens and features that may be active there."""
        found = []
        for lag, by_token in enumerate(self._by_token):
            rows = np.flatnonzero(position >= lag)
            candidates = by_token[token_ids[rows - lag]].tocoo()
            found.append((rows[candidates.row], candidates.col.astype(np.int64)))
        row, feature = (np.concatenate(column) for column in zip(*found, strict=True))
        return row[there[feature]], feature[there[feature]]

    def _drawn(
        self,
        prefix: UInt64[np.ndarray, " token"],
        token_ids: Integer[np.ndarray, " token"],
        row: Int64[np.ndarray, " entry"],
        feature: Integer[np.ndarray, " entry"],
    ) -> Bool[np.ndarray, " entry"]:
        """Whether the draw of a feature at a token makes it active."""
        keys, partner = self._keys(np.uint64(0)), self.partner[feature]
        together = uniform(scrambled(prefix[row] ^ self._keys(_TOGETHER)[feature])) < self.correlation
        decides = np.where((partner != NONE) & together, partner, feature)
        # A shared token is of no language: it has the largest presence.
        presence = np.column_stack([self.presence, self.presence.max(1)])
        language = self.token_language[token_ids[row - self.lag[feature]]]
        return uniform(scrambled(prefix[row] ^ keys[decides])) < presence[feature, language]

    def _keys(self, salt: np.uint64) -> UInt64[np.ndarray, " feature"]:
        first = scrambled(np.array([self.seed], np.uint64) ^ (salt << np.uint64(56)))
        return scrambled(scrambled(np.arange(self.features, dtype=np.uint64)) ^ first)

    @staticmethod
    def _prefixes(
        token_ids: Integer[np.ndarray, " token"], position: Integer[np.ndarray, " token"]
    ) -> UInt64[np.ndarray, " token"]:
        """A hash of each token and all before it in its sequence."""
        state = scrambled(token_ids.astype(np.uint64))
        order = np.argsort(position, kind="stable")
        ends = np.cumsum(np.bincount(position))
        for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            rows = order[start:end]
            state[rows] = scrambled(state[rows] ^ (state[rows - 1] * STEP))
        return state

    def _noise(
        self, prefix: UInt64[np.ndarray, " token"], step: int, layer: int
    ) -> Float64[np.ndarray, "token d_model"]:
        """Normal noise, drawn anew at each step and layer (Box-Muller)."""
        width = self.directions.shape[1]
        place = scrambled(np.array([self.seed, step, layer], np.uint64) ^ (_NOISE << np.uint64(56)))
        key = scrambled(np.bitwise_xor.reduce(place * np.array([1, 3, 5], np.uint64)) ^ prefix)
        half = -(-width // 2)
        drawn = uniform(scrambled(key[:, None] + np.arange(2 * half, dtype=np.uint64) * STEP))
        radius, angle = np.sqrt(-2 * np.log1p(-drawn[:, :half])), 2 * np.pi * drawn[:, half:]
        normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :width]
        return normal * (self.noise / np.sqrt(width))
