from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pytest
from datasets import IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st

import bisae.corpus.streamed
from bisae.corpus.corpus import Corpus, Document
from bisae.corpus.streamed import StreamedCorpus
from bisae.runtime.errors import Refused

NOUNS = ["Der Hund", "Die Katze", "Ein Kind", "Der Zug", "Das Haus"]
TEXTS = [f"{NOUNS[n % 5]} war um {n} Uhr noch da." for n in range(2000)]


def one_by_one(texts: list[str]) -> Iterator[dict[str, str]]:
    return ({"text": text} for text in texts)


@dataclass(frozen=True)
class Given(StreamedCorpus):
    """A corpus of the texts it is given; a text is a shard."""

    by_language = "texts"

    texts: Any

    def content(self) -> object:
        return list(self.texts.values())

    def records(self, language: str) -> Any:
        return IterableDataset.from_generator(one_by_one, gen_kwargs={"texts": self.texts[language]})


def given_texts(*texts: str, **changes: Any) -> Given:
    arguments: dict[str, Any] = {"splits": {"sae": 0.7, "validation": 0.2, "analysis": 0.1}, "seed": 3, "buffer": 100}
    arguments |= {"name": "given", "field": "text", "texts": {"de": list(texts or TEXTS)}}
    return Given(**{**arguments, **changes})


CORPUS = given_texts()


def everything(corpus: Corpus, *splits: str) -> dict[str, list[Document]]:
    return {split: list(corpus.documents(split, 0)) for split in splits}


def test_every_document_is_in_one_split_and_shares_are_as_configured() -> None:
    found = everything(CORPUS, "sae", "validation", "analysis")
    assert sorted(d.text for split in found.values() for d in split) == sorted(TEXTS)
    assert [len(split) / len(TEXTS) for split in found.values()] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert {d.number for split in found.values() for d in split} == set(range(len(TEXTS)))


def test_what_the_shares_leave_over_is_in_no_split() -> None:
    found = everything(given_texts(splits={"sae": 0.2, "validation": 0.3}), "sae", "validation")
    assert [len(split) / len(TEXTS) for split in found.values()] == pytest.approx([0.2, 0.3], abs=0.03)


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_equal_texts_never_cross_splits_and_none_is_lost(texts: list[str], weights: list[float]) -> None:
    shares = {str(n): weight / sum(weights) for n, weight in enumerate(weights)}
    found = everything(given_texts(*texts, splits=shares), *shares)
    where = [(d.text, split) for split, documents in found.items() for d in documents]
    assert len(set(where)) == len({text for text, _ in where}) and len(where) == len(texts)


def test_the_order_is_shuffled_fixed_by_the_seed_and_starts_again_from_the_beginning() -> None:
    first = list(islice(CORPUS.documents("sae", 0), 50))
    assert first == list(CORPUS.documents("sae", 0))[:50] == list(islice(given_texts().documents("sae", 0), 50))
    assert [d.number for d in first] == sorted(d.number for d in first)
    assert [d.text for d in first] != [text for text in TEXTS if text in {d.text for d in first}]


def test_another_seed_is_another_order_and_another_split() -> None:
    whole = [list(given_texts(seed=seed, splits={"sae": 1.0}).documents("sae", 0)) for seed in (3, 4)]
    assert whole[0] != whole[1] and sorted(d.text for d in whole[0]) == sorted(d.text for d in whole[1])
    half = [{d.text for d in given_texts(seed=seed, splits={"sae": 0.5}).documents("sae", 0)} for seed in (3, 4)]
    assert 300 < len(half[0] & half[1]) < 700


def test_the_checksum_tells_apart_what_changes_documents_or_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    changes: list[dict[str, Any]] = [{"field": "body"}, {"seed": 4}, {"buffer": 99}, {"texts": {"de": TEXTS[1:]}}]
    changes += [{"splits": {"sae": 0.6, "validation": 0.4}}]
    sums = [replace(CORPUS, **change).checksum("sae") for change in changes]
    sums += [CORPUS.checksum(split) for split in CORPUS.splits]
    monkeypatch.setattr(bisae.corpus.streamed, "version", lambda package: "6.0.0")
    sums += [CORPUS.checksum("sae")]
    assert len(set(sums)) == len(sums) == 9


def test_the_checksum_does_not_change_with_names_or_with_splits_further_on() -> None:
    other = replace(CORPUS, name="other", splits={"train": 0.7, "rest": 0.1}, texts={"german": TEXTS})
    assert other.checksum("train") == CORPUS.checksum("sae")


@pytest.mark.parametrize("splits", [{"sae": 0.8, "b": 0.3}, {"sae": 1, "b": 0.0}, {"sae": -0.1}, {"sae": "all"}])
def test_shares_that_are_no_shares_are_refused(splits: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"^splits=.*at most 1 together"):
        given_texts(splits=splits)


def test_an_unknown_split_is_refused_with_those_that_are() -> None:
    for ask in (CORPUS.checksum, lambda split: CORPUS.documents(split, 0)):
        with pytest.raises(Refused, match=r"^split=test: given has \['analysis', 'sae', 'validation'\]"):
            ask("test")


@pytest.mark.parametrize("texts", [{}, "de.jsonl", {False: TEXTS, "sv": TEXTS}])  # YAML reads `no` as false
def test_languages_must_be_words(texts: Any) -> None:
    with pytest.raises(Refused, match="^texts=.*in quotes"):
        given_texts(texts=texts)


def test_a_record_without_the_field_is_refused_by_number() -> None:
    with pytest.raises(Refused, match=r"^field=body: no such text in record 0 of de, which has \['text'\]"):
        next(given_texts(field="body").documents("sae", 0))
