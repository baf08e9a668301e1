"""Interface of corpora: documents by split and language (config group `corpus`)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32


class Document(NamedTuple):
    """One text in one language. `number` is its number in the split; its translations have the same number."""

    number: int
    text: str


@runtime_checkable
class Corpus(Protocol):
    """Text in several languages, in splits that share no document."""

    @property
    def name(self) -> str: ...

    @property
    def languages(self) -> tuple[str, ...]: ...

    def checksum(self, split: str) -> str:
        """Return a string that identifies the text of a split and its order. Raises Refused for an unknown split."""
        ...

    def documents(self, split: str, language: int) -> Iterator[Document]:
        """Yield the documents of a split in one language, in a shuffled order that never changes."""
        ...


@runtime_checkable
class CorpusWithLexicon(Protocol):
    """A corpus that knows the language of each of its words, whatever text they are in."""

    def language_of_tokens(self, texts: Sequence[str]) -> Int32[np.ndarray, " item"]:
        """Return an index into `languages` for each vocabulary item, by its text; -1 for what all languages have."""
        ...
