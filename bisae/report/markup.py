"""A table as Markdown and as LaTeX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
PREAMBLE = r"""% Needs \usepackage{booktabs} and, for what is marked, \newcommand{\hl}[1]{\textbf{#1}} or a package's.
% Japanese: LuaLaTeX or XeLaTeX.
"""


class Piece(NamedTuple):
    """Text in a cell of a table. `style`: "", "peak" (emphasised) or "raised"."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table to print. `rows` hold a list of pieces per column, `foot` the paragraphs below the table."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Sequence[Piece]]]
    foot: Sequence[str]


def number(value: float, form: str = "+.3f") -> str:
    """A number with a minus sign in place of a hyphen."""
    return format(value, form.replace(".", "z.")).replace("-", "−")  # z: no sign at a rounded zero


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown. A peak is <b>, since ** does not work beside a space or punctuation."""
    styles = {"": "{}", "peak": "<b>{}</b>", "raised": "<sup>{}</sup>"}
    rows = [table.header, ["---"] * len(table.header), *_cells(table, styles, _markdown_text)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"# {table.title}", "", *lines, "", "\n\n".join(table.foot), ""])


def latex(table: Table) -> str:
    """The table as a LaTeX `table` environment."""
    styles = {"": "{}", "peak": r"\hl{{{}}}", "raised": r"\textsuperscript{{{}}}"}
    rows = [" & ".join(row) + r" \\" for row in _cells(table, styles, _latex_text)]
    header = " & ".join(map(_latex_text, table.header)) + r" \\"
    body = [r"\toprule", header, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"]
    caption = _latex_text(" ".join([f"{table.title}.", *table.foot]))
    begin = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{'l' * len(table.header)}}}"]
    return PREAMBLE + "\n".join([*begin, *body, rf"\caption{{{caption}}}", r"\end{table}", ""])


def _cells(table: Table, styles: dict[str, str], text: Callable[[str], str]) -> list[list[str]]:
    return [
        ["".join(styles[piece.style].format(text(piece.text)) for piece in cell) for cell in row] for row in table.rows
    ]


def _markdown_text(text: str) -> str:
    """Escape text, so that it cannot open a tag, a link or a column."""
    return "".join(f"&#{ord(sign)};" if sign in "&<>|*_[]`\\~$#" else sign for sign in _line(text))


def _latex_text(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in _line(text))


def _line(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)
