"""Text and tables in the terminal."""

from rich.console import Console
from rich.text import Text

LEAST = 190  # columns; a narrower terminal wraps lines, where rich would cut numbers


def wide() -> Console:
    """A console in which no cell of a table is cut."""
    return Console(width=max(LEAST, Console().width), highlight=False)


def say(line: str, style: str = "", console: Console | None = None) -> None:
    """Print a line as it is: brackets are no markup, and a path is not broken."""
    (console or Console()).print(Text(line, style), soft_wrap=True)


def counted(count: int, noun: str) -> str:
    """The count and its noun, as in "1 cell" and "1,572 cells"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"
