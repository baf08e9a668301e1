"""Texts generated under interventions, side by side: a page that works from disk, and a short Markdown file.

A generation is a mapping with model, recipient, layers, kind, control, seed, coefficient, mode, hash, task, source,
reference, answer and loss. Continuations of prompts have the task "continuation" and the reference "".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from bisae.report.interventions.blocks import NONE, RANDOM, short
from bisae.report.markup import Piece, Table, markdown

FIRST = 5  # examples of a task in Markdown
WORD = re.compile(r"[a-zA-ZÀ-ɏ0-9']+|\s+|.")
MARKED = "Marked: what differs from the answer under – (nothing done). Loss: nats per token of the reference."


@dataclass(frozen=True)
class Answer:
    """One answer; `pieces` in the style "peak" differ from the answer under none; `loss` is "" if unknown."""

    label: str
    pieces: Sequence[Piece]
    loss: str


@dataclass(frozen=True)
class GenerationExample:
    """One source text with all answers of one checkpoint; that under none is first."""

    task: str
    place: str
    source: str
    reference: str
    answers: Sequence[Answer]


def examples_of(generations: Sequence[Mapping[str, Any]]) -> list[GenerationExample]:
    """The generations grouped by task, checkpoint and source, in their order."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for generation in generations:
        key = tuple(generation[name] for name in ("task", "model", "recipient", "source", "reference", "example"))
        groups.setdefault(key, []).append(generation)
    return [
        GenerationExample(task, f"{model}, step {recipient}", source, reference, _answers(members))
        for (task, model, recipient, source, reference, _), members in groups.items()
    ]


def generations_page(generations: Sequence[Mapping[str, Any]]) -> str:
    """All generations as one HTML page without other files."""
    examples = examples_of(generations)
    template = (Path(__file__).parents[1] / "templates" / "generations.html").read_text(encoding="utf-8")
    tasks = list(dict.fromkeys(example.task for example in examples))
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return page.render(examples=examples, tasks=tasks, note=MARKED)


def generations_markdown(generations: Sequence[Mapping[str, Any]]) -> str:
    """The first examples of each task as Markdown."""
    shown: dict[str, list[str]] = {}
    for example in examples_of(generations):
        if len(shown.setdefault(example.task, [])) < FIRST:
            shown[example.task].append(markdown(_table(example)).strip())
    return "\n\n".join([table for tables in shown.values() for table in tables] + [MARKED]) + "\n"


def _answers(members: Sequence[Mapping[str, Any]]) -> list[Answer]:
    ordered = sorted(members, key=lambda generation: generation["kind"] != NONE)
    plain = ordered[0]["answer"] if ordered[0]["kind"] == NONE else None
    return [Answer(_label(each), differences(plain, each["answer"]), _loss(each["loss"])) for each in ordered]


def differences(plain: str | None, text: str) -> list[Piece]:
    """The text in pieces; words (characters, in scripts without spaces) that differ from `plain` have style "peak"."""
    if plain is None:
        return [Piece(text)]
    words = WORD.findall(text)
    matcher = SequenceMatcher(None, WORD.findall(plain), words, autojunk=False)
    spans = [(kind, "".join(words[start:end])) for kind, _, _, start, end in matcher.get_opcodes()]
    return [Piece(span, "" if kind == "equal" else "peak") for kind, span in spans if span]


def _label(one: Mapping[str, Any]) -> str:
    if one["kind"] == NONE:
        return short(NONE)
    kind = short(one["kind"])
    if one["control"]:
        draw = f" {one['seed']}" if one["control"] == RANDOM else ""
        kind = f"{one['control']}{draw} (as {kind})"
    place = f"layer {one['layers']}, {one['mode']}"
    strength = "" if pd.isna(one["coefficient"]) else f" ×{one['coefficient']:g}"
    return f"{kind}, {place}{strength}"


def _loss(loss: float | None) -> str:
    return "" if loss is None or pd.isna(loss) else f"{loss:.3f}"


def _table(example: GenerationExample) -> Table:
    texts = [("source", [Piece(example.source)], ""), ("reference", [Piece(example.reference)], "")]
    texts = [text for text in texts if text[1][0].text]
    texts += [(answer.label, list(answer.pieces), answer.loss) for answer in example.answers]
    rows = [[[Piece(label)], pieces, [Piece(loss)]] for label, pieces, loss in texts]
    return Table(f"{example.task}, {example.place}", ["", "text", "loss"], rows, [])
