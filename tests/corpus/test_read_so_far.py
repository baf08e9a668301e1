from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bisae.corpus.read_so_far import ReadSoFar
from bisae.corpus.tokens import TokenizedDocument, balanced
from tests.corpus.test_streamed import given_texts

LISTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=12)


@given(st.tuples(LISTS, LISTS, LISTS))
def test_texts_of_more_than_one_language_are_counted_once_each(texts: tuple[list[list[int]], ...]) -> None:
    read = ReadSoFar(("en", "ja", "fr"))
    for language, documents in enumerate(texts):
        read.add(TokenizedDocument(language, n, np.array(ids, np.int32)) for n, ids in enumerate(documents))
    sets = [set(map(tuple, documents)) for documents in texts]
    expected = {text for text in set.union(*sets) if sum(text in one for one in sets) > 1}
    assert read.shared == len(expected)
    said = f"{len(expected)} of {sum(map(len, texts))} documents read are the same in more than one language"
    assert read.remarks() == ([said] if expected else [])
    assert read.tokens == [sum(map(len, documents)) for documents in texts]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=20), min_size=2, max_size=2))
def test_the_language_that_is_said_to_have_run_out_is_the_one_whose_documents_ended(lengths: list[list[int]]) -> None:
    def tokenizer(texts: list[str], add_special_tokens: bool) -> Any:
        return SimpleNamespace(input_ids=[list(range(len(text.split()))) for text in texts])

    names = ("en", "ja")
    texts = {name: [f"{'word ' * n}{name}" for n in counts] for name, counts in zip(names, lengths, strict=True)}
    corpus = given_texts(texts=texts, splits={"sae": 1.0}, buffer=1)
    read = ReadSoFar(names)
    read.add(balanced(corpus, "sae", tokenizer, 64, 1))
    ended = names.index(read.ended().split()[0])
    assert read.tokens[ended] == sum(n + 1 for n in lengths[ended])
    assert read.ended().startswith(f"{names[ended]} ran out after {read.tokens[ended]} tokens, and every language")
