from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from bisae.features.spaces.shipped import VECTORS
from bisae.features.spaces.text_space import TextSpace, token_texts


class Characters(TextSpace):
    """Vectors by first character."""

    name = "characters"
    texts: list[str] = []

    @property
    def source(self) -> dict[str, object]:
        return {}

    def embed(self, texts: list[str]) -> np.ndarray:
        self.texts = texts
        return np.eye(64)[[ord(text[0]) % 64 for text in texts]]


def test_a_token_is_read_without_its_space_mark_in_lower_case() -> None:
    tokenizer = AutoTokenizer.from_pretrained(VECTORS.parent)
    vocabulary, texts = tokenizer.get_vocab(), token_texts(tokenizer)
    for token, text in {"▁I": "i", "犬": "犬", "▁": "▁", "。": "。", "1": "1", "<s>": None, "<0x41>": None}.items():
        assert texts[vocabulary[token]] == text
    assert len(texts) == len(tokenizer) and sum(text is None for text in texts) == 260


def test_byte_level_tokens_are_read_as_text_and_parts_of_characters_as_none(byte_level: Any) -> None:
    texts = token_texts(byte_level)
    assert texts[byte_level.convert_tokens_to_ids("ĠDog")] == "dog"
    assert texts[byte_level.convert_tokens_to_ids("çĬ¬")] == "犬"
    assert texts[byte_level.convert_tokens_to_ids("ç")] is None
    assert texts[0] is None


def test_tokens_without_text_mean_one_thing_of_their_own(byte_level: Any) -> None:
    space = Characters("average", 0.4)
    vectors, texts = space.vectors(byte_level), token_texts(byte_level)
    assert space.texts == [text for text in texts if text is not None]
    none = np.array([text is None for text in texts])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    products = vectors @ vectors.T
    assert np.all(products[none][:, none] == 1) and np.all(products[none][:, ~none] == 0)
