"""A task as token ids, the same for every LM of one tokenizer."""

from dataclasses import dataclass
from typing import Any

from bisae.errors import ConfigError
from bisae.translation.prompt import Prompt
from bisae.translation.task import Task


@dataclass(frozen=True)
class TaskIds:
    """`prompts` of the examples, BOS first; `texts` are the prompts with their references, which begin at `starts`.

    `others` are the same references after the next example's prompt, as a control; none where there is one example.
    """

    task: Task
    prompt: Prompt
    prompts: list[list[int]]
    texts: list[list[int]]
    starts: list[int]
    others: list[list[int]]
    other_starts: list[int]


def task_ids(task: Task, prompt: Prompt, tokenizer: Any, positions: int | None) -> TaskIds:
    """ConfigError if a prompt and its answer could be longer than `positions`, the longest sequence the LM takes.

    `tokenizer`: a `bisae.lm.tokenizer.TextTokenizer`.
    """
    if type(task.max_new_tokens) is not int or task.max_new_tokens < 1:
        raise ConfigError("translation.tasks.max_new_tokens", task.max_new_tokens, "must be a whole number, at least 1")
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    written = prompt.for_tokenizer(tokenizer)
    plain = [written.text(task, example.source) for example in task.examples]
    if tokenizer(plain[:1]).input_ids[0][:1] == bos:  # the template begins with it
        bos = []
    prompts = [bos + ids for ids in tokenizer(plain).input_ids]
    references = [example.reference for example in task.examples]
    texts, starts = _followed(plain, references, tokenizer, bos)
    wrong = [*plain[1:], *plain[:1]] if len(plain) > 1 else []
    others, other_starts = _followed(wrong, references[: len(wrong)], tokenizer, bos)
    longest = max(*map(len, [*texts, *others]), max(map(len, prompts)) + task.max_new_tokens)
    if positions is not None and longest > positions:
        remedy = f"texts of {task.name} take up to {longest} tokens, and the LM takes {positions}"
        raise ConfigError("translation.tasks.shots", len(task.shots), remedy)
    return TaskIds(task, prompt, prompts, texts, starts, others, other_starts)


def _followed(
    prompts: list[str], references: list[str], tokenizer: Any, bos: list[int]
) -> tuple[list[list[int]], list[int]]:
    """Prompts with their references as ids, and where the references begin."""
    if not prompts:
        return [], []
    full = [prompt + reference for prompt, reference in zip(prompts, references, strict=True)]
    if not tokenizer.has_offsets:
        return _prefixed(tokenizer(prompts).input_ids, tokenizer(full).input_ids, bos)
    encoded = tokenizer(full, return_offsets_mapping=True)
    # Not where the prompt's own ids end: a token may hold the end of the prompt and the beginning of the reference.
    starts = [
        len(bos) + next((number for number, (_, end) in enumerate(offsets) if end > len(prompt)), len(offsets))
        for prompt, offsets in zip(prompts, encoded.offset_mapping, strict=True)
    ]
    for reference, ids, start in zip(references, encoded.input_ids, starts, strict=True):
        if start == len(bos) + len(ids):
            raise ConfigError("translation.tasks", repr(reference), "is a reference without any token; leave it out")
    return [bos + ids for ids in encoded.input_ids], starts


def _prefixed(prompts: list[list[int]], texts: list[list[int]], bos: list[int]) -> tuple[list[list[int]], list[int]]:
    """Of a tokenizer without offsets: known only where the ids of a prompt are the first of its text."""
    for prompt, text in zip(prompts, texts, strict=True):
        if text[: len(prompt)] != prompt or len(text) == len(prompt):
            remedy = (
                "does not say where its tokens stand, and a reference does not begin with one; give a tokenizer.json"
            )
            raise ConfigError("model.tokenizer", "written in Python", remedy)
    return [bos + text for text in texts], [len(bos) + len(prompt) for prompt in prompts]
