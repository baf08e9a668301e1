"""Corpora too large for a package: streamed by `datasets` in a shuffled order, split by a hash of each text."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import xxhash

from bisae.corpus.corpus import Document
from bisae.errors import ConfigError
from bisae.runtime.ranges import Count, Index, Name, Text


@dataclass(frozen=True)
class StreamedCorpus(ABC):
    """Records of each language in the order of `seed` and a shuffle buffer of `buffer` records; `field` is the text.

    `splits` are shares of the documents: seed and text decide which split a document is in, so equal texts never cross.
    A document's number counts the records of its language before splitting.
    """

    by_language: ClassVar[str]  # the field of a subclass that says where each language is

    name: Name
    field: Text
    seed: Index
    buffer: Count
    splits: Mapping[str, Any]

    def __post_init__(self) -> None:
        places = getattr(self, self.by_language)
        if not isinstance(places, Mapping) or not places or not all(isinstance(language, str) for language in places):
            remedy = "must be {language: ...}; a language that YAML reads as something else, like `no`, in quotes"
            raise ConfigError(f"corpus.{self.by_language}", places, remedy)
        shares = self.splits.values()
        if not all(isinstance(share, int | float) and share > 0 for share in shares) or sum(shares) > 1 + 1e-9:
            remedy = "shares must be numbers above 0 and at most 1 together; `~corpus.splits.analysis` takes one away"
            raise ConfigError("corpus.splits", self.splits, remedy)

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(getattr(self, self.by_language))

    @abstractmethod
    def content(self) -> object:
        """What identifies the text of all languages, as JSON."""
        ...

    @abstractmethod
    def records(self, language: str) -> Any:
        """A `datasets.IterableDataset`; what cannot be read is a ConfigError."""
        ...

    def checksum(self, split: str) -> str:
        # The order is the library's: datasets 5 shuffles otherwise than 4, so another version is another corpus.
        settings = (self.field, self.seed, self.buffer, self._share(split), version("datasets"))
        return xxhash.xxh3_128_hexdigest(json.dumps([self.content(), *settings], sort_keys=True).encode())

    def documents(self, split: str, language: int) -> Iterator[Document]:
        low, high = self._share(split)
        name = self.languages[language]
        records = self.records(name).shuffle(seed=self.seed, buffer_size=self.buffer)
        texts = (text_of(record, self.field, f"record {n} of {name}") for n, record in enumerate(records))
        return (Document(n, text) for n, text in enumerate(texts) if low <= self._place(text) < high)

    def _share(self, split: str) -> tuple[float, float]:
        """The part of [0, 1) that holds the documents of a split."""
        if split not in self.splits:
            raise ConfigError("corpus.split", split, f"{self.name} has {sorted(self.splits)}")
        ends = (0.0, *accumulate(self.splits.values()))
        return dict(zip(self.splits, pairwise(ends), strict=True))[split]

    def _place(self, text: str) -> float:
        return (xxhash.xxh3_64_intdigest(text.encode(), seed=self.seed) >> 11) / 2**53  # 53 bits: never rounded up to 1


def text_of(record: Any, field: str, where: str) -> str:
    """The text at `field` of a record; ConfigError naming `where` it is not."""
    fields = record if isinstance(record, dict) else {}
    text = fields.get(field)
    if not isinstance(text, str):
        raise ConfigError("corpus.field", field, f"no such text in {where}, which has {list(fields)}")
    return text
