"""What LMs write under each intervention, side by side."""

from collections.abc import Sequence
from typing import Any

from bisae.intervention.measures import ContinuedPrompts, TranslatedTasks
from bisae.intervention.rows import Row


def generations(
    rows: Sequence[Row], tasks: TranslatedTasks | None, continued: ContinuedPrompts | None
) -> list[dict[str, Any]]:
    """An entry an answer: the row's axes, then task, number of the example, source, reference, answer, and its `loss`.

    The loss is the reference's. Continuations have the task "continuation", no reference and no loss. There is none of
    a row under which nothing was written.
    """
    found = []
    for row in rows:
        axes = {**row.axes, "hash": row.folder.name}
        for made in tasks.translations(row.read(tasks)) if tasks and row.has(tasks) else ():
            answers = zip(made.task.examples, made.answers, made.nats / made.tokens, strict=True)
            for number, (example, answer, loss) in enumerate(answers):
                texts = {"example": number, "source": example.source, "reference": example.reference, "answer": answer}
                found.append({**axes, "task": made.task.name, **texts, "loss": float(loss)})
        if continued and continued.prompts and row.has(continued):
            for number, (prompt, answer) in enumerate(row.read(continued).itertuples(index=False)):
                texts = {"example": number, "source": prompt, "reference": "", "answer": answer}
                found.append({**axes, "task": "continuation", **texts, "loss": None})
    return found
