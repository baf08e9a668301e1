"""Embedding spaces of tokens, from which clusters of meaning come."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from bisae.features.measures.clusters import METHODS, Clustering, FeatureClusters, GlobalClusters, global_clusters
from bisae.runtime.errors import Refused

LARGEST = 20_000  # tokens whose distances to each other are held: 1.6 GB, and as much again while they are clustered
GLOBAL = "global"


@runtime_checkable
class Space(Protocol):
    """The interface of config group `space`."""

    @property
    def fingerprint(self) -> dict[str, object]:
        """All that changes a cluster, as JSON values; holds no path of this machine."""
        ...

    def clustering(self, tokenizer: Any, checksum: str) -> Clustering:
        """The clusters of a Hugging Face tokenizer's tokens. `checksum` is its `Checkpoint.tokenizer`.

        Raises:
            Refused: The space cannot be used for this tokenizer, or cannot be loaded.
        """
        ...


class VectorSpace(ABC):
    """A space that has a vector for each token of the vocabulary; the mean vector is subtracted."""

    name: str

    def __init__(self, clustering: str, distance: float) -> None:
        if clustering not in (*METHODS, GLOBAL):
            raise Refused("clustering", clustering, f"choose one of {', '.join((*METHODS, GLOBAL))}")
        if not 0 < distance < 1:
            raise Refused("distance", distance, "must be above 0 and below 1, a cosine distance")
        self._method, self._distance = clustering, distance
        self._made: dict[str, Clustering] = {}

    @property
    def fingerprint(self) -> dict[str, object]:
        with self._refused_as_space():
            source = self.source
        return {"space": self.name, "clustering": self._method, "distance": self._distance, **source}

    @property
    @abstractmethod
    def source(self) -> dict[str, object]:
        """The origin of the vectors, for the fingerprint."""

    @abstractmethod
    def vectors(self, tokenizer: Any, words: Sequence[str] = ()) -> Float32[np.ndarray, "token dimension"]:
        """Unit vectors of the tokenizer's whole vocabulary, then of `words`, in lower case."""

    def clustering(self, tokenizer: Any, checksum: str) -> Clustering:
        if checksum not in self._made:
            self._made[checksum] = self.clustering_with(tokenizer, ())
        return self._made[checksum]

    def clustering_with(self, tokenizer: Any, words: Sequence[str]) -> Clustering:
        """The clusters of a tokenizer's tokens and of `words`, whose ids follow."""
        if self._method == GLOBAL and len(tokenizer) > LARGEST:
            remedy = f"takes at most {LARGEST} tokens, and the vocabulary has {len(tokenizer)}; choose average"
            raise Refused("clustering", GLOBAL, remedy)
        with self._refused_as_space():
            vectors = self.vectors(tokenizer, words)
        if self._method == GLOBAL:
            return GlobalClusters(global_clusters(vectors, self._distance))
        return FeatureClusters(vectors, self._method, self._distance)

    @contextmanager
    def _refused_as_space(self) -> Iterator[None]:
        """Name the space in a refusal that comes later than its constructor, where `model` alone could be any model."""
        try:
            yield
        except Refused as refused:
            if refused.field == "space":
                raise
            raise Refused("space", self.name, str(refused)) from refused


def same_vocabulary(tokenizer: Any, other: Any) -> bool:
    """True if two Hugging Face tokenizers give every token the same id, so that a vector belongs to its token."""
    return bool(tokenizer.get_vocab() == other.get_vocab())
