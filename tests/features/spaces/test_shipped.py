"""The scale of the shipped space: what the slides' examples and a lexicon say of its distance."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.pairs import read_pairs
from bisae.features.spaces.shipped import VECTORS, ShippedSpace
from bisae.features.spaces.text_space import token_texts
from bisae.translation.lexicon import dice_lexicon

DISTANCE = 0.62


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(VECTORS.parent)


def test_tokens_without_a_text_are_one_cluster_and_a_token_is_its_text() -> None:
    space = ShippedSpace("average", DISTANCE)
    vectors, texts = space.vectors(tokenizer()), token_texts(tokenizer())
    none = np.array([text is None for text in texts])
    assert sum(none) == 260 and np.allclose(vectors[none] @ vectors.T, none[None])
    vocabulary = tokenizer().get_vocab()
    assert np.array_equal(vectors[vocabulary["The"]], vectors[vocabulary["▁the"]])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_translations_that_set_nothing_are_joined_and_other_words_are_not() -> None:
    vectors, texts = ShippedSpace("average", DISTANCE).vectors(tokenizer()), token_texts(tokenizer())
    _, pairs = read_pairs(EMBEDDED / "sae.tsv.xz")  # the LMs' lexicon is of another split
    sides = [tokenizer()([pair.texts[side] for pair in pairs], add_special_tokens=False).input_ids for side in (0, 1)]
    tokens = tokenizer().convert_ids_to_tokens(list(range(len(texts))))
    words = np.array([text is not None and any(map(str.isalpha, text)) for text in texts])
    there, back = dice_lexicon(list(zip(*sides, strict=True)), len(texts), words, together=8, dice=0.15)
    english = np.array([token for token in np.flatnonzero(there >= 0) if back[there[token]] == token])  # best for both
    whole = [tokens[token].startswith("▁") and len(tokens[token]) > 3 for token in english]
    english = english[whole]
    distances = 1 - vectors[english] @ vectors[there[english]].T
    translations, others = np.diag(distances), distances[~np.eye(len(english), dtype=bool)]
    assert len(english) >= 500
    assert np.mean(translations <= DISTANCE) > 0.75 and np.mean(others <= DISTANCE) < 0.007
    assert np.mean(translations <= 0.4) < 0.65  # the distance of the clusters of the whole vocabulary before
