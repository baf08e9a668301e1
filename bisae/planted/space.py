"""The space of a planted vocabulary (config group `space`): words of one meaning are a cluster."""

from typing import Any

from bisae.features.measures.clusters import Clustering, GlobalClusters
from bisae.planted.truth import TRUTH, Truth
from bisae.runtime.errors import Refused


class PlantedSpace:
    """Clusters of the tokens by their true meanings, which lie beside the tokenizer of a planted LM."""

    @property
    def fingerprint(self) -> dict[str, object]:
        """The meanings are part of the tokenizer's identity."""
        return {"space": "planted"}

    def clustering(self, tokenizer: Any, checksum: str) -> Clustering:
        file = tokenizer.folder / TRUTH
        if not file.is_file():
            raise Refused("space", "planted", "knows the meanings of planted LMs' tokens only; choose another space")
        return GlobalClusters(Truth.load(file).token_meaning)
