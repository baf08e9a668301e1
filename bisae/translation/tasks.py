"""Translation tasks, from pair files and JSON lines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.languages import codes_of
from bisae.corpus.pairs import read_pairs
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, Name, Text

Row = TypeVar("Row")


class TranslationExample(NamedTuple):
    """A text and its translation."""

    source: str
    reference: str


@dataclass(frozen=True)
class Task:
    """Examples to translate from one language into another.

    Attributes:
        source_language, target_language: codes (`bisae.corpus.languages`).
        instruction: text for the prompt; "" if there is none.
        shots: solved examples that stand before each example in its prompt.
        max_new_tokens: longest answer.
    """

    name: str
    source_language: str
    target_language: str
    instruction: str
    shots: tuple[TranslationExample, ...]
    examples: tuple[TranslationExample, ...]
    max_new_tokens: int


@runtime_checkable
class Tasks(Protocol):
    """A source of translation tasks, chosen in the config."""

    def read(self) -> list[Task]:
        """Read the tasks; what cannot be read is refused, with file and line."""
        ...


def both_ways(
    name: str,
    languages: Sequence[str],
    shots: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    max_new_tokens: int,
) -> list[Task]:
    """A task for each direction between the languages; each row of `shots` and `rows` is a text in every language."""

    def examples(source: int, target: int, rows: Sequence[Sequence[str]]) -> tuple[TranslationExample, ...]:
        return tuple(TranslationExample(row[source], row[target]) for row in rows)

    return [
        Task(
            f"{name}-{languages[source]}-{languages[target]}",
            languages[source],
            languages[target],
            "",
            examples(source, target, shots),
            examples(source, target, rows),
            max_new_tokens,
        )
        for source, target in permutations(range(len(languages)), 2)
    ]


def task_languages(field: str, found: object, names: Iterable[object]) -> tuple[str, ...]:
    """The codes of languages; an unknown one, or one named twice, is refused as `field`, which holds `found`."""
    try:
        return codes_of(names)
    except ValueError as error:
        raise Refused(field, found, str(error)) from error


def first(rows: Sequence[Row], number: int | None, least: int, field: str, where: object) -> Sequence[Row]:
    """The first `number` rows (None: all) of file `where`; Refused as `field` if fewer than that or than `least`."""
    number = len(rows) if number is None else number
    if not least <= number <= len(rows):
        raise Refused(field, number, f"must be at least {least}, and {where} holds {len(rows)}")
    return rows[:number]


SHIPPED = "shipped"


@dataclass(frozen=True)
class PairTasks:
    """Tasks in every direction between the languages of a pair file (`bisae.corpus.pairs`).

    Attributes:
        name: begins the tasks' names.
        pairs: file of the examples; "shipped": texts that no LM or SAE was trained on.
        shot_pairs: file of the shots; "shipped" as above.
        shots: how many, from the beginning of their file.
        examples: how many, from the beginning of their file; None: all.
        max_new_tokens: longest answer.
    """

    name: Name
    pairs: Text
    shot_pairs: Text
    shots: Index
    examples: Count | None
    max_new_tokens: Count

    def read(self) -> list[Task]:
        languages, rows = _read("pairs", self.pairs, "translation")
        shot_languages, shots = _read("shot_pairs", self.shot_pairs, "shots")
        if shot_languages != languages:
            raise Refused("shot_pairs", shot_languages, f"needs the languages of pairs={languages}")
        return both_ways(
            self.name,
            languages,
            first(shots, self.shots, 0, "shots", self.shot_pairs),
            first(rows, self.examples, 1, "examples", self.pairs),
            self.max_new_tokens,
        )


def _read(field: str, file: str, shipped: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    path = EMBEDDED / f"{shipped}.tsv.xz" if file == SHIPPED else Path(file)
    try:
        languages, pairs = read_pairs(path)
    except (OSError, ValueError) as error:
        raise Refused(field, file, str(error)) from error
    return languages, [pair.texts for pair in pairs]


@dataclass(frozen=True)
class JsonlTasks:
    """Tasks in every direction between the languages of a JSON Lines file.

    Attributes:
        name: begins the tasks' names.
        file: one JSON object a line.
        keys: each language's key in an object.
        shots: how many of the first objects are shots.
        examples: how many of the other objects are translated; None: all.
        max_new_tokens: longest answer.
    """

    name: Name
    file: Text
    keys: Mapping[str, str]
    shots: Index
    examples: Count | None
    max_new_tokens: Count

    def read(self) -> list[Task]:
        if len(self.keys) < 2:
            raise Refused("keys", dict(self.keys), "needs two languages or more")
        languages = task_languages("keys", dict(self.keys), self.keys)
        try:
            lines = Path(self.file).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeError) as error:
            raise Refused("file", self.file, str(error)) from error
        rows = [self._row(line, number) for number, line in enumerate(lines, 1) if line.strip()]
        shots = first(rows, self.shots, 0, "shots", self.file)
        examples = first(rows[self.shots :], self.examples, 1, "examples", f"{self.file} after its {self.shots} shots")
        return both_ways(self.name, languages, shots, examples, self.max_new_tokens)

    def _row(self, line: str, number: int) -> tuple[str, ...]:
        where = f"{self.file}:{number}"
        try:
            found: Any = json.loads(line)
        except ValueError as error:
            raise Refused("file", where, f"cannot be read as JSON: {error}") from error
        texts: list[Any] = [found.get(key) for key in self.keys.values()] if isinstance(found, dict) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            keys = ", ".join(self.keys.values())
            raise Refused("keys", keys, f"{where} has not a text for each of them")
        return tuple(texts)
