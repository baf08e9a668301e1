from itertools import islice

import pytest

from bisae.corpus.embedded import EmbeddedCorpus
from bisae.runtime.errors import Refused

CORPUS = EmbeddedCorpus("embedded", seed=0)


def test_the_documents_of_both_languages_are_the_same_sentences_in_another_order() -> None:
    english = {d.number: d.text for d in CORPUS.documents("shots", 0)}
    japanese = {d.number: d.text for d in CORPUS.documents("shots", 1)}
    assert english.keys() == japanese.keys() == set(range(20))
    assert all(text.count("\n") == 5 for text in (*english.values(), *japanese.values()))
    assert [d.number for d in CORPUS.documents("shots", 0)] != [d.number for d in CORPUS.documents("shots", 1)]


def test_the_order_depends_on_the_seed_and_is_part_of_the_checksum() -> None:
    other = EmbeddedCorpus("embedded", seed=1)
    assert CORPUS.checksum("sae") != other.checksum("sae") != CORPUS.checksum("validation")
    heads = [[d.number for d in islice(c.documents("shots", 0), 5)] for c in (CORPUS, CORPUS, other)]
    assert heads[0] == heads[1] != heads[2]


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(Refused, match="^split=test: the embedded corpus has"):
        CORPUS.checksum("test")
