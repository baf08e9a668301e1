"""Translation tasks from the files that llm-jp-eval's preprocessing writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, Text
from bisae.translation.tasks import Task, TranslationExample, first, task_languages

SHOT_SPLIT = "train"


@dataclass(frozen=True)
class LlmJpEvalTasks:
    """Tasks from the files `<folder>/<split>/<name>.json`, {"instruction", "output_length", "samples"}.

    A sample is {"input", "output"}. This follows llm-jp-eval's description of its format; it is not verified that
    prompts match its own byte by byte.

    Attributes:
        directions: source and target language of each file's `name`.
        shots: how many samples of split train stand before each example.
        examples: how many samples are translated, from the first; None: all.
        max_new_tokens: of an answer; None: the file's output_length.
    """

    folder: Text
    split: Text
    directions: Mapping[str, Sequence[str]]
    shots: Index
    examples: Count | None
    max_new_tokens: Count | None

    def read(self) -> list[Task]:
        ways = {}
        for name, languages in self.directions.items():
            if isinstance(languages, str) or len(languages) != 2:
                raise Refused(name, languages, "must be [from, into]")
            ways[name] = task_languages(name, languages, languages)
        return [self._task(name, *languages) for name, languages in ways.items()]

    def _task(self, name: str, source: str, target: str) -> Task:
        path = Path(self.folder) / self.split / f"{name}.json"
        content, samples = _read(path)
        length = content.get("output_length") if self.max_new_tokens is None else self.max_new_tokens
        if not isinstance(length, int):
            raise Refused("max_new_tokens", None, f"{path} has no output_length: give a number")
        shot_path = path.parents[1] / SHOT_SPLIT / path.name
        return Task(
            name,
            source,
            target,
            content["instruction"],
            tuple(first(_read(shot_path)[1], self.shots, 0, "shots", shot_path)) if self.shots else (),
            tuple(first(samples, self.examples, 1, "examples", path)),
            length,
        )


def _read(path: Path) -> tuple[dict[str, Any], list[TranslationExample]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # for bad JSON the error names the line
        raise Refused("folder", path, f"cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("instruction"), str):
        raise Refused("folder", path, "has no `instruction`")
    samples = content.get("samples")
    if not isinstance(samples, list):
        raise Refused("folder", path, "has no list `samples`")
    for number, sample in enumerate(samples):
        texts = [sample.get("input"), sample.get("output")] if isinstance(sample, dict) else []
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise Refused("folder", path, f"sample {number} lacks the text `input` or `output`")
    return content, [TranslationExample(sample["input"], sample["output"]) for sample in samples]
