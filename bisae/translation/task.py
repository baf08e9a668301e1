"""What is to be translated."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from bisae.errors import ConfigError
from bisae.languages import codes_of

Row = TypeVar("Row")


class Example(NamedTuple):
    """A text and its translation."""

    source: str
    reference: str


@dataclass(frozen=True)
class Task:
    """Translation from one language to another, by codes as in `bisae.languages`.

    `shots` stand before each example in its prompt.
    """

    name: str
    source_language: str
    target_language: str
    instruction: str
    shots: tuple[Example, ...]
    examples: tuple[Example, ...]
    max_new_tokens: int


@runtime_checkable
class Tasks(Protocol):
    """A choice of `translation.tasks`."""

    def read(self) -> list[Task]:
        """ConfigError naming key, file and line of what cannot be read."""
        ...


def both_ways(
    name: str,
    languages: Sequence[str],
    shots: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    max_new_tokens: int,
) -> list[Task]:
    """A task for each direction between the languages. A row holds the same text in each language."""

    def examples(source: int, target: int, rows: Sequence[Sequence[str]]) -> tuple[Example, ...]:
        return tuple(Example(row[source], row[target]) for row in rows)

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


def task_languages(key: str, found: object, names: Iterable[object]) -> tuple[str, ...]:
    """Codes of the languages that `translation.tasks.<key>` names; ConfigError for one that is none, or named twice."""
    try:
        return codes_of(names)
    except ValueError as error:
        raise ConfigError(f"translation.tasks.{key}", found, str(error)) from error


def first(rows: Sequence[Row], number: int | None, least: int, key: str, where: object) -> Sequence[Row]:
    """The first `number` of rows, None: all; ConfigError unless there are so many and at least `least`."""
    number = len(rows) if number is None else number
    if not least <= number <= len(rows):
        raise ConfigError(
            f"translation.tasks.{key}", number, f"must be at least {least}, and {where} holds {len(rows)}"
        )
    return rows[:number]
