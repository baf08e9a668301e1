"""Tasks from parallel text as JSON lines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisae.errors import ConfigError
from bisae.runtime.ranges import Count, Index, Name, Text
from bisae.translation.task import Task, both_ways, first, task_languages


@dataclass(frozen=True)
class JsonlTasks:
    """Every direction between the languages of a file of one JSON object a line.

    `keys` names each language's key in an object. Of the objects, the first `shots` stand before the others in prompts;
    `examples` of the others are translated, None: all.
    """

    name: Name
    file: Text
    keys: Mapping[str, str]
    shots: Index
    examples: Count | None
    max_new_tokens: Count

    def read(self) -> list[Task]:
        if len(self.keys) < 2:
            raise ConfigError("translation.tasks.keys", dict(self.keys), "needs two languages or more")
        languages = task_languages("keys", dict(self.keys), self.keys)
        try:
            lines = Path(self.file).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeError) as error:
            raise ConfigError("translation.tasks.file", self.file, str(error)) from error
        rows = [self._row(line, number) for number, line in enumerate(lines, 1) if line.strip()]
        shots = first(rows, self.shots, 0, "shots", self.file)
        examples = first(rows[self.shots :], self.examples, 1, "examples", f"{self.file} after its {self.shots} shots")
        return both_ways(self.name, languages, shots, examples, self.max_new_tokens)

    def _row(self, line: str, number: int) -> tuple[str, ...]:
        where = f"{self.file}:{number}"
        try:
            found: Any = json.loads(line)
        except ValueError as error:
            raise ConfigError("translation.tasks.file", where, f"cannot be read as JSON: {error}") from error
        texts: list[Any] = [found.get(key) for key in self.keys.values()] if isinstance(found, dict) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            keys = ", ".join(self.keys.values())
            raise ConfigError("translation.tasks.keys", keys, f"{where} has not a text for each of them")
        return tuple(texts)
