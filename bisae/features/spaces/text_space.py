"""Spaces that embed the text of each token."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from bisae.features.measures.clusters import centred
from bisae.features.spaces.space import VectorSpace

BYTE = re.compile("<0x[0-9A-F]{2}>")


def token_texts(tokenizer: Any) -> list[str | None]:
    """The text of each vocabulary item, in lower case and without its space mark.

    None for special tokens and for parts of characters.
    """
    special = set(tokenizer.all_special_ids)
    texts: list[str | None] = []
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))):
        nothing = token is None or number in special or BYTE.fullmatch(token)
        text = "\ufffd" if nothing else tokenizer.convert_tokens_to_string([token])
        texts.append(None if "\ufffd" in text else text.strip().lower() or token)
    return texts


class TextSpace(VectorSpace):
    """Vectors of tokens' texts. All tokens without a text have one meaning of their own together."""

    @abstractmethod
    def embed(self, texts: list[str]) -> Float[np.ndarray, "text dimension"]:
        """Return a vector for each text."""

    def mean(self, vocabulary: Float[np.ndarray, "text dimension"]) -> Float[np.ndarray, " dimension"]:
        """The vector to subtract, given those of the vocabulary's texts."""
        mean: Float[np.ndarray, " dimension"] = vocabulary.mean(0)
        return mean

    def vectors(self, tokenizer: Any, words: Sequence[str] = ()) -> Float32[np.ndarray, "token dimension"]:
        texts = [*token_texts(tokenizer), *words]
        some = np.array([text is not None for text in texts])
        embedded = self.embed([text for text in texts if text is not None])
        centre = self.mean(embedded[: len(embedded) - len(words)])
        vectors = np.zeros((len(texts), embedded.shape[1] + 1), np.float32)
        vectors[some, :-1] = centred(embedded, centre)
        vectors[~some, -1] = 1
        return vectors
