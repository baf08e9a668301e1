"""Prompts of a translation task, as text and as token ids."""

import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Text
from bisae.translation.tasks import Task, TranslationExample

TEMPLATES = Path(__file__).parent / "templates"


class _Files(jinja2.FileSystemLoader):
    """Loads the templates of a folder, and rewrites their text before it is filled in."""

    def __init__(self, folder: Path, rewrite: Callable[[str], str]) -> None:
        super().__init__(folder)
        self._rewrite = rewrite

    def get_source(self, environment: jinja2.Environment, template: str) -> Any:
        source, *rest = super().get_source(environment, template)
        return self._rewrite(source), *rest


class Prompt:
    """Makes prompts from a template.

    The template can use `source`, `shots` (each with `.source` and `.reference`), `instruction`, `source_language` and
    `target_language`. The line break at the end of its file is not part of the prompt.

    Args:
        template: path of a text file in Jinja's notation, or the name of one in `templates/`.
        stop: an answer ends before this text.
        as_special: rewrites the template's own text, not the texts filled in (`for_tokenizer`).

    Raises:
        Refused: the template cannot be read, is not valid or does not use `source`, or `stop` is empty.
    """

    def __init__(self, template: Text, stop: Text, as_special: Callable[[str], str] = str) -> None:
        self._name = template
        shipped = TEMPLATES / f"{template}.txt"
        self._path = shipped if shipped.is_file() else Path(template)
        if not stop:
            raise Refused("stop", repr(stop), "must be the text an answer ends before")
        self.stop = stop
        settings = jinja2.Environment(
            loader=_Files(self._path.parent, as_special),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            self._template = settings.get_template(self._path.name)
            sample = self.text(Task("", "", "", "", (TranslationExample("", ""),), (), 0), "\ue000")
        except jinja2.TemplateSyntaxError as error:
            raise Refused("template", f"{self._path}:{error.lineno}", str(error.message)) from error
        except jinja2.UndefinedError as error:
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename) == self._path
            ]
            raise Refused("template", f"{self._path}:{lines[-1]}", str(error)) from error
        except (OSError, UnicodeError, jinja2.TemplateNotFound) as error:
            known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.txt")))
            raise Refused("template", template, f"neither a readable file nor one of {known}") from error
        if "\ue000" not in sample:
            raise Refused("template", self._path, "does not use {{ source }}")

    def for_tokenizer(self, tokenizer: Any) -> "Prompt":
        """The same prompt for a `bisae.lm.tokenizer.TextTokenizer`.

        Special tokens in the template, such as those of a chat format, become special tokens; in a source, reference
        or instruction the same characters are plain text.
        """
        return Prompt(self._name, self.stop, tokenizer.as_special)

    def text(self, task: Task, source: str) -> str:
        """The prompt for one source text of the task."""
        return self._template.render(
            source=source,
            shots=task.shots,
            instruction=task.instruction,
            source_language=task.source_language,
            target_language=task.target_language,
        )

    def answer(self, generated: str) -> str:
        """The translation in a text that an LM generated after a prompt."""
        return normalised(generated.partition(self.stop)[0])


def normalised(text: str) -> str:
    """The text stripped and in Unicode form NFKC, as llm-jp-eval compares texts."""
    return unicodedata.normalize("NFKC", text.strip())


@dataclass(frozen=True)
class TaskIds:
    """A task as token ids, one list for each example, BOS first.

    Attributes:
        prompts: without references.
        texts: prompts with their references.
        starts: position in `texts` where the reference begins.
        others: as a control, each reference after the next example's prompt; empty if there is one example.
        other_starts: position in `others` where the reference begins.
    """

    task: Task
    prompt: Prompt
    prompts: list[list[int]]
    texts: list[list[int]]
    starts: list[int]
    others: list[list[int]]
    other_starts: list[int]


def task_ids(task: Task, prompt: Prompt, tokenizer: Any, positions: int | None) -> TaskIds:
    """Encode the prompts and references of a task.

    Args:
        tokenizer: a `bisae.lm.tokenizer.TextTokenizer`.
        positions: the longest sequence the LM takes; None: no limit.

    Raises:
        Refused: a prompt with its answer could be longer than `positions`, a reference has no token of its own, or the
            tokenizer does not tell where references begin.
    """
    if type(task.max_new_tokens) is not int or task.max_new_tokens < 1:
        raise Refused("max_new_tokens", task.max_new_tokens, "must be a whole number, at least 1")
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    written = prompt.for_tokenizer(tokenizer)
    plain = [written.text(task, example.source) for example in task.examples]
    if tokenizer(plain[:1]).input_ids[0][:1] == bos:  # the template begins with BOS
        bos = []
    prompts = [bos + ids for ids in tokenizer(plain).input_ids]
    references = [example.reference for example in task.examples]
    texts, starts = _followed(plain, references, tokenizer, bos)
    wrong = [*plain[1:], *plain[:1]] if len(plain) > 1 else []
    others, other_starts = _followed(wrong, references[: len(wrong)], tokenizer, bos)
    longest = max(*map(len, [*texts, *others]), max(map(len, prompts)) + task.max_new_tokens)
    if positions is not None and longest > positions:
        remedy = f"texts of {task.name} take up to {longest} tokens, and the LM takes {positions}"
        raise Refused("shots", len(task.shots), remedy)
    return TaskIds(task, prompt, prompts, texts, starts, others, other_starts)


def _followed(
    prompts: list[str], references: list[str], tokenizer: Any, bos: list[int]
) -> tuple[list[list[int]], list[int]]:
    """Ids of prompts with their references, and the position where each reference begins."""
    if not prompts:
        return [], []
    full = [prompt + reference for prompt, reference in zip(prompts, references, strict=True)]
    if not tokenizer.has_offsets:
        return _prefixed(tokenizer(prompts).input_ids, tokenizer(full).input_ids, bos)
    encoded = tokenizer(full, return_offsets_mapping=True)
    # By offsets, not by the length of the prompt's ids: one token may span the end of the prompt and the reference.
    starts = [
        len(bos) + next((number for number, (_, end) in enumerate(offsets) if end > len(prompt)), len(offsets))
        for prompt, offsets in zip(prompts, encoded.offset_mapping, strict=True)
    ]
    for reference, ids, start in zip(references, encoded.input_ids, starts, strict=True):
        if start == len(bos) + len(ids):
            raise Refused("tasks", repr(reference), "is a reference without any token; leave it out")
    return [bos + ids for ids in encoded.input_ids], starts


def _prefixed(prompts: list[list[int]], texts: list[list[int]], bos: list[int]) -> tuple[list[list[int]], list[int]]:
    """The same for a tokenizer without offsets: possible only if each text's ids begin with its prompt's ids."""
    for prompt, text in zip(prompts, texts, strict=True):
        if text[: len(prompt)] != prompt or len(text) == len(prompt):
            remedy = (
                "does not say where its tokens stand, and a reference does not begin with one; give a tokenizer.json"
            )
            raise Refused("tokenizer", "written in Python", remedy)
    return [bos + text for text in texts], [len(bos) + len(prompt) for prompt in prompts]
