"""Large corpora: `datasets` streams them in a shuffled order, and a hash of each text decides its split."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from importlib.metadata import version
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import xxhash

from bisae.corpus.corpus import Document
from bisae.corpus.languages import codes_of
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, Name, Text

BAD = "bisae: bad row"  # key of a record that holds no text: says which row of which file
NAMED = 3  # skipped rows that the message names


@dataclass
class SkippedRows:
    """Count of the rows that were left out, and the places of the first few."""

    language: str
    count: int = 0
    places: list[str] = dataclass_field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.places) < NAMED:
            self.places.append(place)

    def __str__(self) -> str:
        places = ", ".join(self.places) + (" ..." if self.count > len(self.places) else "")
        return f"skip_bad: {self.count:,} rows of {self.language} are left out: {places}"


@dataclass(frozen=True)
class StreamedCorpus(ABC):
    """Records of each language, shuffled and split.

    A document's number counts the records of its language before splitting.

    Args:
        field: Field of the text in each record; with dots, a field of nested objects.
        seed: Seed of the order and of the splits.
        buffer: Records in the shuffle buffer.
        splits: Share of the documents for each split. The hash of seed and text decides, so equal texts stay together.
        skip_bad: Leave out records without text instead of refusing them. `left_out` has the records left out so far
            in the last reading of each (split, language).
    """

    by_language: ClassVar[str]  # name of the subclass field that maps each language to its text

    name: Name
    field: Text
    seed: Index
    buffer: Count
    splits: Mapping[str, Any]
    skip_bad: bool = dataclass_field(default=False, kw_only=True)  # cells of older versions do not have it
    left_out: dict[tuple[str, str], SkippedRows] = dataclass_field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        places = getattr(self, self.by_language)
        if not isinstance(places, Mapping) or not places or not all(isinstance(language, str) for language in places):
            remedy = "must be {language: ...}; a language that YAML reads as something else, like `no`, in quotes"
            raise Refused(self.by_language, places, remedy)
        try:
            codes_of(places)
        except ValueError as error:
            raise Refused(self.by_language, f"{{{', '.join(places)}}}", str(error)) from error
        shares = self.splits.values()
        if not all(isinstance(share, int | float) and share > 0 for share in shares) or sum(shares) > 1 + 1e-9:
            remedy = "shares must be numbers above 0 and at most 1 together; give less to one, or leave one out"
            raise Refused("splits", self.splits, remedy)

    @property
    def languages(self) -> tuple[str, ...]:
        return codes_of(getattr(self, self.by_language))

    @abstractmethod
    def content(self) -> object:
        """Return JSON that identifies the text of all languages."""
        ...

    @abstractmethod
    def records(self, language: str) -> Any:
        """Return a `datasets.IterableDataset`, by the user's name for a language. Raises Refused if unreadable."""
        ...

    def checksum(self, split: str) -> str:
        # The order is the library's: datasets 5 shuffles otherwise than 4, so another version is another corpus.
        settings = [self.field, self.seed, self.buffer, self._share(split), version("datasets")]
        settings += ["skip_bad"] if self.skip_bad else []
        return xxhash.xxh3_128_hexdigest(json.dumps([self.content(), *settings], sort_keys=True).encode())

    def documents(self, split: str, language: int) -> Iterator[Document]:
        low, high = self._share(split)
        name = tuple(getattr(self, self.by_language))[language]  # as the user has it
        records = self.records(name).shuffle(seed=self.seed, buffer_size=self.buffer)
        left_out = self.left_out[split, name] = SkippedRows(name)

        def texts() -> Iterator[Document]:
            for number, record in enumerate(records):
                place = f"record {number} of {name}"
                try:
                    text = text_of(record, self.field, place)
                except Refused:
                    if not self.skip_bad:
                        raise
                    left_out.add(record.get(BAD, place))
                else:
                    yield Document(number, text)

        return (document for document in texts() if low <= self._place(document.text) < high)

    def _share(self, split: str) -> tuple[float, float]:
        """Return the part of [0, 1) that belongs to a split."""
        if split not in self.splits:
            raise Refused("split", split, f"{self.name} has {sorted(self.splits)}")
        ends = (0.0, *accumulate(self.splits.values()))
        return dict(zip(self.splits, pairwise(ends), strict=True))[split]

    def _place(self, text: str) -> float:
        return (xxhash.xxh3_64_intdigest(text.encode(), seed=self.seed) >> 11) / 2**53  # 53 bits: never rounded up to 1


def text_of(record: Any, field: str, where: str) -> str:
    """Return the text at `field` of a record; a dotted `field` leads through nested objects.

    `where` is the place of the record, for messages. Raises Refused (`field`) if there is no text.
    """
    value, parts = record, [field]
    if isinstance(record, dict) and field not in record:
        parts = field.split(".")
    for number, part in enumerate(parts):
        inside = ".".join(parts[:number])
        if not isinstance(value, dict):
            what = f"{inside} of {where}" if inside else where
            raise Refused("field", field, f"no such text in {what}, which is {_kind(value)}, no object")
        if part not in value:
            fields = f"which has {list(value)}" if not inside else f"where {inside} has {list(value)}"
            raise Refused("field", field, f"no such text in {where}, {fields}")
        value = value[part]
    if not isinstance(value, str):
        remedy = f"is {_kind(value)} in {where}, no text; skip_bad=true leaves such rows out"
        raise Refused("field", field, remedy)
    return value


def _kind(value: object) -> str:
    """Name the type of a value in words of JSON."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {dict: "an object", list: "a list", str: "text", int: "a number", float: "a number", bytes: "binary"}
    return names.get(type(value), f"a {type(value).__name__}")
