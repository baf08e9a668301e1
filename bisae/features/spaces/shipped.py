"""The vectors that come with the shipped tokenizer; docs/embedded.md says how they were made."""

import json
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import safe_open

from bisae.features.spaces.text_space import TextSpace
from bisae.lm.model import EMBEDDED
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum

VECTORS = EMBEDDED / "tokenizer" / "vectors.safetensors"


class ShippedSpace(TextSpace):
    """Vectors of the texts of the shipped tokenizer's tokens, as `use` has them, without a package to install."""

    name = "shipped"

    @property
    def source(self) -> dict[str, object]:
        return {"vectors": checksum([VECTORS])}

    def embed(self, texts: list[str]) -> Float[np.ndarray, "text dimension"]:
        with safe_open(VECTORS, "np") as file:
            vectors, known = file.get_tensor("vectors"), json.loads(file.metadata()["texts"])
        row_of: dict[str, Any] = {text: row for row, text in enumerate(known)}
        if missing := [text for text in texts if text not in row_of]:
            only = f"has vectors for the vocabulary of the shipped LMs only, not for {missing[0]!r}"
            raise Refused("space", self.name, f"{only}; choose use, lm or sentence_transformers")
        return vectors[[row_of[text] for text in texts]].astype(np.float64)

    def mean(self, vocabulary: Float[np.ndarray, "text dimension"]) -> Float[np.ndarray, " dimension"]:
        return np.zeros(vocabulary.shape[1])  # the shipped vectors are centred
