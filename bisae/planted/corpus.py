"""The text of a planted world (config group `corpus`): sentences of made-up words, drawn from topics."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from bisae.corpus.corpus import Document
from bisae.planted.lexicon import MARK, Lexicon
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of
from bisae.runtime.ranges import Count, Index, Name, NotNegative, Share

VERSION = 1  # raise it when the same settings make another text
PAIRS = "pairs"  # the split of sentence pairs
FUNCTION, COMMA, DIGIT = 0.5, 0.05, 0.03  # shares of content words after which there is one


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

    def _documents(self, split: str) -> int:
        if split not in {**self.splits, PAIRS: self.pairs}:
            raise Refused("split", split, f"{self.name} has {sorted(self.splits)}")
        return self.pairs if split == PAIRS else self.splits[split]

    def checksum(self, split: str) -> str:
        """See `bisae.corpus.corpus.Corpus`. The number of documents of other splits is left out."""
        left_out = ("name", "splits", "pairs", "lexicon")
        settings = {key: value for key, value in asdict(self).items() if key not in left_out}
        settings |= {"lexicon": self._words.settings, "split": split, "documents": self._documents(split)}
        return f"planted-{name_of({**settings, 'version': VERSION})}"

    def documents(self, split: str, language: int) -> Iterator[Document]:
        numbers = self._random(split, -1, language).permutation(self._documents(split))
        if split == PAIRS:
            numbers = np.sort(numbers)
        words = self._words.words
        for number in numbers.tolist():
            yield Document(number, " ".join(words[one] for one in self._ids(split, number, language)))

    def language_of_tokens(self, texts: list[str]) -> Int32[np.ndarray, " token"]:
        """The language of each token by its text, as an index into `languages`; -1 if all have it."""
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

    def _ids(self, split: str, number: int, language: int) -> list[int]:
        """The tokens of a document."""
        lexicon, about = self._words, self._random(split, number, -1)
        cumulative = self._by_topic[about.randint(self.topics)]
        sentences = 1 if split == PAIRS else self.sentences
        lengths = about.randint(1 + self.words // 2, self.words + self.words // 2 + 1, sentences)
        random = self._random(split, number, language)
        ids: list[int] = []
        for length in lengths.tolist():
            meanings = np.searchsorted(cumulative, about.uniform(size=length), side="right")
            if language % 2:
                meanings = meanings[::-1]
            drawn = random.uniform(size=(5, length))
            spoken = np.where(drawn[0] < self.loans, random.randint(len(self.languages), size=length), language)
            form = (drawn[1] ** 2 * lexicon.forms).astype(int)
            function = lexicon.function(language)
            after = function[(drawn[2] ** 2 * len(function)).astype(int)]
            for place, meaning in enumerate(meanings.tolist()):
                ids.append(int(lexicon.content(int(spoken[place]))[meaning, form[place]]))
                if drawn[3, place] < FUNCTION:
                    ids.append(int(after[place]))
                if drawn[4, place] < COMMA:
                    ids.append(2)
                elif drawn[4, place] < COMMA + DIGIT:
                    ids.append(3 + int(random.randint(10)))
            ids.append(1)
        return ids
