"""Tasks from pair files."""

from dataclasses import dataclass
from pathlib import Path

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.pairs import read_pairs
from bisae.errors import ConfigError
from bisae.runtime.ranges import Count, Index, Name, Text
from bisae.translation.task import Task, both_ways, first

SHIPPED = "shipped"


@dataclass(frozen=True)
class PairTasks:
    """Every direction between the languages of a pair file (`bisae.corpus.pairs`).

    `shots` and `examples`: how many, from the beginning of their files; None: all. "shipped" are files no LM or SAE was
    trained on.
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
            raise ConfigError(
                "translation.tasks.shot_pairs", shot_languages, f"needs the languages of pairs={languages}"
            )
        return both_ways(
            self.name,
            languages,
            first(shots, self.shots, 0, "shots", self.shot_pairs),
            first(rows, self.examples, 1, "examples", self.pairs),
            self.max_new_tokens,
        )


def _read(key: str, file: str, shipped: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    path = EMBEDDED / f"{shipped}.tsv.xz" if file == SHIPPED else Path(file)
    try:
        languages, pairs = read_pairs(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"translation.tasks.{key}", file, str(error)) from error
    return languages, [pair.texts for pair in pairs]
