"""The token clusters of the shipped tokenizer; docs/embedded.md says how they were made."""

from functools import cached_property
from typing import Any

from safetensors.numpy import load_file

from bisae.features.measures.clusters import Clustering, GlobalClusters
from bisae.features.spaces.space import same_vocabulary
from bisae.lm.model import EMBEDDED
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum

CLUSTERS = EMBEDDED / "tokenizer" / "clusters.safetensors"


class ShippedSpace:
    """Clusters of the shipped tokenizer's vocabulary. Any other vocabulary is refused."""

    @cached_property
    def fingerprint(self) -> dict[str, object]:
        return {"space": "shipped", "clusters": checksum([CLUSTERS])}

    def clustering(self, tokenizer: Any, checksum: str) -> Clustering:
        from transformers import AutoTokenizer  # slow to import

        if not same_vocabulary(tokenizer, AutoTokenizer.from_pretrained(CLUSTERS.parent, trust_remote_code=False)):
            remedy = "has clusters for the vocabulary of the shipped LMs only; choose use, lm or sentence_transformers"
            raise Refused("space", "shipped", remedy)
        return GlobalClusters(load_file(CLUSTERS)["clusters"])
