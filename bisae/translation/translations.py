"""What an LM makes of a task."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from bisae.translation.language_model import TranslatingLM
from bisae.translation.task import Task
from bisae.translation.token_ids import TaskIds


@dataclass(frozen=True, eq=False)
class Translations:
    """`answers` to a task's examples; `nats`: cross-entropy of each reference after its prompt, of `tokens` tokens.

    `nats_other`: of the same reference after another example's prompt, NaN where there is none. What the right source
    saves tells an LM that translates from one that only knows the language it writes. `answers` are "" where nothing
    was to be written.
    """

    task: Task
    answers: tuple[str, ...]
    nats: Float64[np.ndarray, " example"]
    tokens: Int64[np.ndarray, " example"]
    nats_other: Float64[np.ndarray, " example"]


def translate(ids: TaskIds, lm: TranslatingLM, answers: bool = True) -> Translations:
    written = [""] * len(ids.prompts)
    if answers:
        written = lm.generate(ids.prompts, ids.prompt.stop, ids.task.max_new_tokens)
    losses, others = (
        [loss[start - 1 :] for loss, start in zip(lm.token_losses(texts), starts, strict=True)]
        for texts, starts in ((ids.texts, ids.starts), (ids.others, ids.other_starts))
    )
    return Translations(
        ids.task,
        tuple(map(ids.prompt.answer, written)),
        np.array([loss.sum() for loss in losses]),
        np.array([len(loss) for loss in losses]),
        np.array([loss.sum() for loss in others]) if others else np.full(len(losses), np.nan),
    )
