"""Sentence pairs: the parallel text everything of the embedded corpus is made of.

A pair file is tab-separated UTF-8, plain or `.xz`; its first line names the columns: `id`, then one language code a
column (`id  en  ja`). Six consecutive rows make a document, since neighbouring rows are often on one topic.
"""

import csv
import hashlib
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from bisae.corpus.corpus import Corpus, Document
from bisae.corpus.languages import codes_of

ROWS_PER_DOCUMENT = 6


class Pair(NamedTuple):
    """One sentence in each language of a corpus, in the order of the file's columns."""

    id: int
    texts: tuple[str, ...]


def read_pairs(path: Path) -> tuple[tuple[str, ...], list[Pair]]:
    """Return the languages (`bisae.corpus.languages`) and the pairs of a pair file.

    Raises ValueError with the file, and the line of a malformed row.
    """
    opened = lzma.open if path.suffix == ".xz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as handle:
            rows = csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(rows, [])
            if len(header) < 2 or header[0] != "id":
                raise ValueError(f"{path}:1: the first line must name the columns: id, then one language a column")
            try:
                languages = codes_of(header[1:])
            except ValueError as error:
                raise ValueError(f"{path}:1: {error}") from error
            pairs = []
            for number, row in enumerate(rows, start=2):
                if len(row) != len(header) or not row[0].isdecimal() or not all(row):
                    wanted = f"a number and {len(header) - 1} sentences"
                    raise ValueError(f"{path}:{number}: expected {wanted}, found {row!r}")
                pairs.append(Pair(int(row[0]), tuple(row[1:])))
    except (UnicodeError, lzma.LZMAError, EOFError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    return languages, pairs


def write_pairs(path: Path, languages: tuple[str, ...], pairs: Iterable[Pair]) -> None:
    """Write a pair file; the inverse of `read_pairs`."""
    lines = ["\t".join(("id", *languages)), *("\t".join((str(pair.id), *pair.texts)) for pair in pairs)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME) if path.suffix == ".xz" else data)


def documents(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """Yield groups of six consecutive rows; the last one may be shorter."""
    for start in range(0, len(pairs), ROWS_PER_DOCUMENT):
        yield pairs[start : start + ROWS_PER_DOCUMENT]


@runtime_checkable
class Sentences(Corpus, Protocol):
    """A corpus whose split `pairs` holds sentence pairs: document n of every language is from pair n."""

    @property
    def pairs(self) -> int: ...


@dataclass(frozen=True)
class PairSentences:
    """The sentences of a pair file as a corpus of one split: document n of every language is from pair n.

    Raises ValueError as `read_pairs`.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def _content(self) -> tuple[tuple[str, ...], list[Pair]]:
        return read_pairs(self.path)

    @property
    def languages(self) -> tuple[str, ...]:
        return self._content[0]

    @property
    def pairs(self) -> int:
        return len(self._content[1])

    def checksum(self, split: str) -> str:
        return f"sentences-{hashlib.sha256(self.path.read_bytes()).hexdigest()}"

    def documents(self, split: str, language: int) -> Iterator[Document]:
        return (Document(number, pair.texts[language]) for number, pair in enumerate(self._content[1]))
