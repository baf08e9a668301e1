"""What an LM reads of a task, and what of its text is the translation."""

import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from bisae.errors import ConfigError
from bisae.runtime.ranges import Text
from bisae.translation.task import Example, Task

TEMPLATES = Path(__file__).parent / "templates"
KEY = "translation.prompt.template"


class _Files(jinja2.FileSystemLoader):
    """Templates of a folder, rewritten before they are filled in."""

    def __init__(self, folder: Path, rewrite: Callable[[str], str]) -> None:
        super().__init__(folder)
        self._rewrite = rewrite

    def get_source(self, environment: jinja2.Environment, template: str) -> Any:
        source, *rest = super().get_source(environment, template)
        return self._rewrite(source), *rest


class Prompt:
    """A template, and the text an answer ends before.

    A template is a text file in Jinja's notation, by path or one of `templates/` by name. It can name `source`, `shots`
    (each with `.source` and `.reference`), `instruction`, `source_language` and `target_language`. The line break at
    the end of the file is not part of the prompt. `as_special` rewrites the file's own text, not what is filled in: see
    `for_tokenizer`.
    """

    def __init__(self, template: Text, stop: Text, as_special: Callable[[str], str] = str) -> None:
        self._name = template
        shipped = TEMPLATES / f"{template}.txt"
        self._path = shipped if shipped.is_file() else Path(template)
        if not stop:
            raise ConfigError("translation.prompt.stop", repr(stop), "must be the text an answer ends before")
        self.stop = stop
        settings = jinja2.Environment(
            loader=_Files(self._path.parent, as_special),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            self._template = settings.get_template(self._path.name)
            tried = self.text(Task("", "", "", "", (Example("", ""),), (), 0), "\ue000")
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(KEY, f"{self._path}:{error.lineno}", str(error.message)) from error
        except jinja2.UndefinedError as error:
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename) == self._path
            ]
            raise ConfigError(KEY, f"{self._path}:{lines[-1]}", str(error)) from error
        except (OSError, UnicodeError, jinja2.TemplateNotFound) as error:
            known = ", ".join(sorted(file.stem for file in TEMPLATES.glob("*.txt")))
            raise ConfigError(KEY, template, f"neither a readable file nor one of {known}") from error
        if "\ue000" not in tried:
            raise ConfigError(KEY, self._path, "does not use {{ source }}")

    def for_tokenizer(self, tokenizer: Any) -> "Prompt":
        """The same for a `bisae.lm.tokenizer.TextTokenizer`.

        Special tokens that the template spells, as those of a chat format, are special; in a source, a reference or an
        instruction they are text.
        """
        return Prompt(self._name, self.stop, tokenizer.as_special)

    def text(self, task: Task, source: str) -> str:
        return self._template.render(
            source=source,
            shots=task.shots,
            instruction=task.instruction,
            source_language=task.source_language,
            target_language=task.target_language,
        )

    def answer(self, generated: str) -> str:
        """The translation in what an LM wrote after a prompt."""
        return normalised(generated.partition(self.stop)[0])


def normalised(text: str) -> str:
    """As llm-jp-eval compares texts: stripped, NFKC."""
    return unicodedata.normalize("NFKC", text.strip())
