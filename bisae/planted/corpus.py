"""The text of a planted world (config group `corpus`): sentences of made-up words, drawn from topics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from bisae.corpus.corpus import Document
from bisae.planted.lexicon import MARK, SHARED_TOKENS, Lexicon
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.runtime.ranges import Count, Index, Name, NotNegative, Share

VERSION = 1  # raise it when the same settings make another text
PAIRS = "pairs"  # the split of sentence pairs
FUNCTION, COMMA, DIGIT = 0.5, 0.05, 0.03  # shares of content words after which there is one
END_ID, COMMA_ID, DIGIT_ID = (1 + SHARED_TOKENS.index(token) for token in ".,0")


@dataclass(frozen=True)
class PlantedCorpus:
    """Documents of a topic each: conf/corpus/planted.yaml says what each setting is.

    Document n is about the same in all languages: the same meanings, sentence by sentence. Every other language has the
    words of a sentence in reverse order.
    """

    name: Name
    lexicon: Mapping[str, Any]
    splits: Mapping[str, Count]
    pairs: Count
    topics: Count
    on_topic: NotNegative
    zipf: NotNegative
    sentences: Count
    words: Count
    loans: Share
    seed: Index

    def __post_init__(self) -> None:
        if PAIRS in self.splits:
            raise Refused("splits", dict(self.splits), f"{PAIRS} is the name of the sentence pairs")
        _ = self._words

    @property
    def languages(self) -> tuple[str, ...]:
        return self._words.languages

    @cached_property
    def _words(self) -> Lexicon:
        return Lexicon.of(self.lexicon)

    @cached_property
    def _content(self) -> Int32[np.ndarray, "language meaning form"]:
        return np.stack([self._words.content(language) for language in range(len(self.languages))])

    def _documents(self, split: str) -> int:
        if split not in {**self.splits, PAIRS: self.pairs}:
            raise Refused("split", split, f"{self.name} has {sorted(self.splits)}")
        return self.pairs if split == PAIRS else self.splits[split]

    def checksum(self, split: str) -> str:
        """See `bisae.corpus.corpus.Corpus`. The number of documents of other splits is left out."""
        left_out = ("name", "splits", "lexicon")
        settings = {key: value for key, value in asdict(self).items() if key not in left_out}
        settings |= {"lexicon": self._words.identity, "split": split, "documents": self._documents(split)}
        return f"planted-{name_of({**settings, 'version': VERSION})}"

    def documents(self, split: str, language: int) -> Iterator[Document]:
        numbers = self._random(split, -1, language).permutation(self._documents(split))
        if split == PAIRS:
            numbers = np.sort(numbers)
        words = np.array(self._words.words, object)
        for number in numbers.tolist():
            yield Document(number, " ".join(words[self._ids(split, number, language)]))

    def language_of_tokens(self, texts: Sequence[str]) -> Int32[np.ndarray, " item"]:
        """See `bisae.corpus.corpus.CorpusWithLexicon`."""
        known = dict(zip(self._words.words, self._words.token_language.tolist(), strict=True))
        return np.array([known.get(text.replace(MARK, " ").strip(), -1) for text in texts], np.int32)

    def _random(self, split: str, number: int, language: int) -> np.random.RandomState:
        """Draws are the same in all versions of NumPy."""
        place = [ord(letter) for letter in split]
        return np.random.RandomState([self.seed % 2**32, number + 1, language + 1, *place])

    @cached_property
    def _by_topic(self) -> Float64[np.ndarray, "topic meaning"]:
        """Cumulative probabilities of meanings."""
        random, meanings = np.random.RandomState([self.seed % 2**32]), self._words.meanings
        often = 1 / np.arange(1, meanings + 1) ** float(self.zipf)
        topic = random.randint(self.topics, size=meanings)
        weights = often * np.where(topic == np.arange(self.topics)[:, None], 1 + float(self.on_topic), 1)
        return np.cumsum(weights, 1) / weights.sum(1, keepdims=True)

    def _ids(self, split: str, number: int, language: int) -> Int32[np.ndarray, " token"]:
        """The tokens of a document."""
        lexicon, about = self._words, self._random(split, number, -1)
        cumulative = self._by_topic[about.randint(self.topics)]
        sentences = 1 if split == PAIRS else self.sentences
        lengths = about.randint(1 + self.words // 2, self.words + self.words // 2 + 1, sentences)
        meanings = np.searchsorted(cumulative, about.uniform(size=lengths.sum()), side="right")
        ends = np.cumsum(lengths)
        if language % 2:  # within each sentence
            meanings = meanings[np.repeat(ends + ends - lengths, lengths) - 1 - np.arange(len(meanings))]
        random = self._random(split, number, language)
        drawn, digit = random.uniform(size=(5, len(meanings))), random.randint(10, size=len(meanings))
        spoken = np.where(drawn[0] < self.loans, random.randint(len(self.languages), size=len(meanings)), language)
        function = lexicon.function(language)
        # A word, and for some words what follows: a function word, a comma or a digit, the end of the sentence.
        ids = np.zeros((len(meanings), 4), np.int32)
        ids[:, 0] = self._content[spoken, meanings, (drawn[1] ** 2 * lexicon.forms).astype(int)]
        ids[:, 1] = np.where(drawn[3] < FUNCTION, function[(drawn[2] ** 2 * len(function)).astype(int)], 0)
        ids[:, 2] = np.select([drawn[4] < COMMA, drawn[4] < COMMA + DIGIT], [COMMA_ID, DIGIT_ID + digit], 0)
        ids[ends - 1, 3] = END_ID
        return ids[ids > 0]
