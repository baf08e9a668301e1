"""Generation and loss, on the shipped LM."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from bisae.lm.generation import CausalLM
from bisae.lm.model import Checkpoint
from bisae.metrics.translation import MetricUnavailable
from bisae.metrics.translation.bleu import Bleu
from bisae.metrics.translation.chrf import Chrf
from bisae.translation.prompts import Prompt, TaskIds, task_ids
from bisae.translation.scores import Scorer, Translations, translate
from bisae.translation.tasks import PairTasks, Task, TranslationExample

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


WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "dog", "run"]


def translations(noise: float, examples: int = 40) -> Translations:
    """References of which a share of the words is wrong."""
    random = np.random.default_rng(1)
    references = [" ".join(random.choice(WORDS, 8)) for _ in range(examples)]
    answers = [" ".join("x" if random.random() < noise else w for w in text.split()) for text in references]
    task = Task("t", "ja", "en", "", (), tuple(TranslationExample("ソ", f" {text}") for text in references), 9)
    tokens = random.integers(4, 12, examples)
    return Translations(task, tuple(answers), tokens * (1.0 + noise) + random.random(examples), tokens, tokens * 2.5)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    metrics = {"bleu": Bleu(None, keep_in_memory=True), "chrf": Chrf(0, keep_in_memory=True)}
    return Scorer(metrics, 200, 0, tmp_path_factory.mktemp("scores"))


def test_a_perfect_translation_scores_100_and_the_loss_is_per_token(scorer: Scorer) -> None:
    made = translations(0.0)
    (scores,) = scorer.scores([made])
    assert scores["bleu"].value == pytest.approx(100) and scores["chrf"].value == pytest.approx(100)
    assert scores["loss"].value == pytest.approx(made.nats.sum() / made.tokens.sum())
    assert "tok:13a" in scores["bleu"].signature and len(scores["chrf"].segments) == 40


def test_intervals_hold_the_score_and_narrow_with_examples(scorer: Scorer) -> None:
    few, many = scorer.scores([translations(0.3, 20), translations(0.3, 320)])
    for name in ("loss", "bleu", "chrf"):
        widths = [scores[name].interval.high - scores[name].interval.low for scores in (few, many)]
        assert widths[1] < 0.5 * widths[0]
        assert few[name].interval.low < few[name].value < few[name].interval.high


def test_a_change_is_paired(scorer: Scorer) -> None:
    worse, baseline = scorer.scores([translations(0.3), translations(0.1)])
    for name, sign in (("loss", 1), ("bleu", -1), ("chrf", -1)):
        change, interval = worse[name].change(baseline[name])
        assert change == worse[name].value - baseline[name].value
        assert interval.low * sign > 0 and interval.high * sign > 0
        assert baseline[name].change(baseline[name]) == (0, (0, 0))
    with pytest.raises(ValueError, match="20 examples against 40"):
        scorer.scores([translations(0.3, 20)])[0]["loss"].change(baseline["loss"])


class Absent:
    """A metric whose program is missing."""

    features = ("sources",)

    def compute(self, **columns: Any) -> dict[str, Any]:
        raise MetricUnavailable("no such program")


def test_an_unavailable_metric_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    scorer = Scorer({"absent": Absent(), "chrf": Chrf(0, keep_in_memory=True)}, 10, 0, tmp_path)
    with caplog.at_level(logging.WARNING, "bisae.translation"):
        scores = scorer.scores([translations(0.1, 5), translations(0.2, 5)])
    assert [set(one) for one in scores] == [{"loss", "source_gain", "chrf"}] * 2
    assert caplog.messages == ["absent is left out: no such program"]


class Slow:
    """A metric of single examples that says how often it was asked for how many: their answer's length."""

    features = ("sources", "predictions")
    signature = "slow:1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def compute(self, sources: Sequence[str], predictions: Sequence[str]) -> dict[str, Any]:
        self.asked.append(len(predictions))
        return {"segments": [float(len(text)) for text in predictions]}


def test_a_slow_metric_is_asked_once_for_all_and_never_again(tmp_path: Path) -> None:
    slow, (one, other) = Slow(), (translations(0.1, 30), translations(0.5, 30))
    scores = Scorer({"slow": slow}, 50, 0, tmp_path).scores([one, other, one])
    again = Scorer({"slow": Slow()}, 50, 0, tmp_path).scores([other])
    different = {
        (example.source, answer)
        for made in (one, other)
        for example, answer in zip(made.task.examples, made.answers, strict=True)
    }
    assert slow.asked == [len(different)]
    for made, score in zip((one, other, one), scores, strict=True):
        assert score["slow"].segments.tolist() == [len(answer) for answer in made.answers]
        assert score["slow"].value == pytest.approx(np.mean([len(answer) for answer in made.answers]))
        assert score["slow"].interval.low < score["slow"].value < score["slow"].interval.high
    assert again[0]["slow"].resampled.tolist() == scores[1]["slow"].resampled.tolist()
    slower = Slow()
    Scorer({"slow": slower}, 50, 0, tmp_path).scores([other])
    assert slower.asked == []


def test_the_right_sources_gain_is_nats_a_token_against_a_wrong_one(scorer: Scorer) -> None:
    made = translations(0.3)
    (scores,) = scorer.scores([made])
    assert scores["source_gain"].value == pytest.approx((made.tokens * 2.5 - made.nats).sum() / made.tokens.sum())
    (alone,) = scorer.scores([replace(made, nats_other=np.full(len(made.nats), np.nan))])
    assert "source_gain" not in alone
