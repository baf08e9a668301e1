"""To which texts rules can be applied."""

from typing import Any

import numpy as np
import pytest

from bisae.analysis.rules import AlignmentRule
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.corpus.pairs import Pair, PairSentences, write_pairs
from bisae.features.tokens import Tokens
from bisae.planted.lexicon import SHARED_TOKENS
from bisae.runtime.errors import Refused
from tests.analysis.small_cell import rules
from tests.planted.worlds import LEXICON, corpus

EMBEDDED = EmbeddedCorpus("embedded", 0)
OWN_PAIRS = AlignmentRule("corpus", 99, 0.2, 0.1)


def test_with_language_token_a_word_has_its_own_language_and_a_shared_token_the_documents() -> None:
    text = corpus()
    words = text._words
    ids = np.array([words.content(0)[0, 0], words.content(1)[0, 0], 1, 2], np.int32)
    assert words.words[1] == SHARED_TOKENS[0]
    for document in range(2):
        language = np.full(4, document, np.uint8)
        tokens = Tokens(ids, language, np.zeros(4, np.int32), np.arange(4, dtype=np.int16))
        found = rules(language="token").language_of_rows(tokens, ["▁" + word for word in words.words], text)
        assert found.tolist() == [0, 1, document, document]
        assert rules().language_of_rows(tokens, words.words, text).tolist() == language.tolist()


def test_the_corpus_own_sentence_pairs_are_those_of_its_split_pairs() -> None:
    assert OWN_PAIRS.sentences(corpus()) == corpus() and OWN_PAIRS.file is None
    described = rules(alignment=OWN_PAIRS).describe["alignment"]
    assert described["pairs"] == "corpus"  # whose checksum changes with them
    assert corpus(pairs=31).checksum("sae") != corpus().checksum("sae")


@pytest.mark.parametrize(
    ("text", "changed", "field"),
    [
        (EMBEDDED, {"language": "token"}, "language"),
        (EMBEDDED, {"alignment": OWN_PAIRS}, "pairs"),
        (corpus(lexicon={**LEXICON, "languages": ["en", "ja", "ru"]}), {"alignment": OWN_PAIRS}, "pairs"),
        (corpus(lexicon={**LEXICON, "languages": ["en", "ru"]}), {"language": "script"}, "language"),
    ],
)
def test_a_text_that_lacks_what_a_rule_needs_is_refused(text: Any, changed: dict[str, Any], field: str) -> None:
    rules().check(text)
    with pytest.raises(Refused) as refused:
        rules(**changed).check(text)
    assert refused.value.field == field


def test_a_pair_file_of_three_languages_is_refused(tmp_path: Any) -> None:
    write_pairs(tmp_path / "pairs.tsv", ("en", "ja", "ru"), [Pair(0, ("a", "b", "c"))])
    sentences = PairSentences(tmp_path / "pairs.tsv")
    with pytest.raises(Refused, match="is of 3 languages, not two"):
        rules(alignment=AlignmentRule(str(sentences.path), 9, 0.2, 0.1)).check(sentences)
