"""Your own text: local files by language, JSON Lines or Parquet (`corpus=jsonl`)."""

import hashlib
import json
import logging
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import xxhash

from bisae.corpus.files import READABLE, cells, find, is_arrow, lines
from bisae.corpus.streamed import BAD, StreamedCorpus, text_of
from bisae.runtime.errors import Refused
from bisae.runtime.values import check_texts

log = logging.getLogger(__name__)

UNREADABLE = (ValueError, EOFError, OSError, zlib.error, lzma.LZMAError)  # ValueError: also pyarrow's


@dataclass(frozen=True)
class JsonlCorpus(StreamedCorpus):
    """Local text: a record is a line of JSON, or a row of a Parquet file or saved dataset.

    `files` maps each language to a path, folder or glob, or a list of them; files are read in the order of their names.
    The checksum covers the bytes of the files in this order: other folders and names give the same checksum.
    """

    by_language = "files"

    files: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        for paths in self._paths.values():
            for path in paths:
                self._check_first(path)

    def content(self) -> object:
        return self._digests

    def records(self, language: str) -> Any:
        from datasets import IterableDataset  # slow to import

        # Not load_dataset("json"): it guesses a type for every field, and fails where files differ in one nobody reads.
        arguments = {"paths": self._paths[language], "field": self.field, "skip_bad": self.skip_bad}
        return IterableDataset.from_generator(read, gen_kwargs=arguments)

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        return {language: find(check_texts("files", files)) for language, files in self.files.items()}

    @cached_property
    def _digests(self) -> list[list[str]]:
        digests = [[digest(path) for path in paths] for paths in self._paths.values()]
        seen: dict[str, tuple[str, str]] = {}
        for (language, paths), checksums in zip(self._paths.items(), digests, strict=True):
            for path, checksum in zip(paths, checksums, strict=True):
                first, other = seen.setdefault(checksum, (language, path))
                if (first, other) == (language, path) or not next(read([path], self.field, self.skip_bad), None):
                    continue
                if first != language:
                    remedy = f"the same text as {other}: it cannot be both {first} and {language}"
                    raise Refused("files", path, remedy)
                log.warning("%s holds the same text as %s: %s is read twice", path, other, language)
        return digests

    def _check_first(self, path: str) -> None:
        """Refuse a file whose first row, with `skip_bad` all rows, cannot be used."""
        if all(BAD in row for row in read([path], self.field, self.skip_bad)):
            next(read([path], self.field), None)


def digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
    except OSError as error:
        raise Refused("files", path, f"cannot be read: {error.strerror}") from error


def read(paths: Sequence[str], field: str, skip_bad: bool = False) -> Iterator[dict[str, str | None]]:
    """Yield {field: text} for each row of the files.

    With `skip_bad`, a row without text gives {field: None, BAD: "file:row"}, where blank lines count as rows.

    Raises:
        Refused: One of `files` is cut off or damaged or, without `skip_bad`, a row has no text at `field`.
    """
    for path in paths:
        number, arrow = 0, is_arrow(path)
        kind = "Parquet or Arrow" if arrow else "JSON"
        try:
            rows: Iterator[Any] = cells(path, field) if arrow else lines(path)
            for number, row in enumerate(rows, 1):
                if not arrow and not row.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    record = {row[0]: row[1].as_py()} if arrow else json.loads(row.decode("utf-8-sig", "surrogatepass"))
                    text = text_of(record, field, place)
                    text.encode()  # JSON can hold half a surrogate pair, which is no text
                except (ValueError, RecursionError) as error:
                    if skip_bad:
                        yield {field: None, BAD: place}
                        continue
                    if isinstance(error, Refused):
                        raise
                    remedy = READABLE if number == 1 else "skip_bad=true leaves such rows out"
                    raise Refused("files", place, f"cannot be read as {kind}: {error}; {remedy}") from error
                yield {field: text}
        except Refused:
            raise
        except UNREADABLE as error:
            remedy = f"cannot be read as {kind}: {error}; {READABLE}"
            raise Refused("files", f"{path}:{number}", remedy) from error
