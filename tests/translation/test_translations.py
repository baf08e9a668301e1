"""Generation and loss, on the shipped LM."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bisae.lm.model import Checkpoint
from bisae.translation.language_model import CausalLM
from bisae.translation.pair_tasks import PairTasks
from bisae.translation.prompt import Prompt
from bisae.translation.token_ids import TaskIds, task_ids
from bisae.translation.translations import Translations, translate

LENGTH = 12


@pytest.fixture(scope="module")
def lm(step512: Checkpoint) -> CausalLM:
    model = AutoModelForCausalLM.from_pretrained(step512.folder, dtype=torch.float32).eval()
    return CausalLM(model, step512.load_tokenizer(), 4)


@pytest.fixture(scope="module")
def ids(lm: CausalLM) -> TaskIds:
    (into_ja, _) = PairTasks("embedded", "shipped", "shipped", 1, 6, LENGTH).read()
    return task_ids(into_ja, Prompt("pairs", "\n"), lm.tokenizer, None)


@pytest.fixture(scope="module")
def made(ids: TaskIds, lm: CausalLM) -> Translations:
    return translate(ids, lm)


@torch.no_grad()
def written_alone(model: Any, prompt: list[int], end: set[int]) -> list[int]:
    """Greedily, without a cache, padding or company."""
    text = list(prompt)
    while len(text) < len(prompt) + LENGTH and text[-1] not in end or len(text) == len(prompt):
        text.append(int(model(torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
    return text[len(prompt) :]


def test_an_answer_is_what_the_lm_writes_greedily_up_to_the_line_break(
    made: Translations, ids: TaskIds, lm: CausalLM
) -> None:
    assert len({len(prompt) for prompt in ids.prompts}) > 1
    newline = lm.tokenizer.convert_tokens_to_ids("<0x0A>")
    alone = [written_alone(lm.model, prompt, {newline, lm.tokenizer.eos_token_id}) for prompt in ids.prompts]
    assert {len(text) < LENGTH for text in alone} == {True, False}  # some are cut
    assert made.answers == tuple(lm.tokenizer.decode(text, skip_special_tokens=True).strip() for text in alone)


def test_generation_ends_at_the_stop(ids: TaskIds, lm: CausalLM) -> None:
    assert [text.count("\n") for text in lm.generate(ids.prompts[:1], "\n", 40)] == [1]
    assert [text.count("\n") > 1 for text in lm.generate(ids.prompts[:1], "never", 40)] == [True]


@torch.no_grad()
def test_the_loss_is_transformers_own_of_the_reference_alone(made: Translations, ids: TaskIds, lm: CausalLM) -> None:
    for number, (text, start) in enumerate(zip(ids.texts, ids.starts, strict=True)):
        labels = torch.tensor([[-100] * start + text[start:]])
        own = lm.model(torch.tensor([text]), labels=labels).loss.item()
        assert made.tokens[number] == len(text) - start
        assert made.nats[number] / made.tokens[number] == pytest.approx(own, rel=1e-5)
