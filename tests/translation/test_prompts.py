from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bisae.corpus.embedded import EMBEDDED
from bisae.lm.tokenizer import TextTokenizer, load_tokenizer
from bisae.pretrain.documents import Group, Mix, epoch_documents
from bisae.runtime.errors import Refused
from bisae.translation.prompts import Prompt, task_ids
from bisae.translation.tasks import PairTasks, Task, TranslationExample

TASK = Task(
    "t",
    "en",
    "ja",
    "訳せ。",
    (TranslationExample("<b>", "び"), TranslationExample("c", "し")),
    (TranslationExample("d", "でー"),),
    5,
)


def test_a_pair_prompt_is_sentences_and_translations_in_turn() -> None:
    assert Prompt("pairs", "\n").text(TASK, "d") == "<b>\nび\nc\nし\nd\n"


def test_a_labelled_prompt_ends_where_the_answer_begins() -> None:
    assert Prompt("labelled", "\n").text(TASK, "d") == "en: <b>\nja: び\n\nen: c\nja: し\n\nen: d\nja:"


def test_an_llm_jp_eval_prompt_has_instruction_shots_and_an_open_answer() -> None:
    assert Prompt("llm_jp_eval", "\n\n").text(TASK, "d") == (
        "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。\n\n"
        "### 指示:\n訳せ。\n\n"
        "### 入力:\n<b>\n\n### 応答:\nび\n\n"
        "### 入力:\nc\n\n### 応答:\nし\n\n"
        "### 入力:\nd\n\n### 応答:\n"
    )


def test_a_template_of_ones_own_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Into {{ target_language }}, {{ instruction }} {{ source }} =\n")
    assert Prompt(str(file), "\n").text(TASK, "d{{") == "Into ja, 訳せ。 d{{ ="


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ source }}\n{{ sauce }}\n", r"mine.txt:2: 'sauce' is undefined"),
        ("{{ source }}\n{% for shot in shots %}\n{{ shot.text }}\n{% endfor %}", r"mine.txt:3: .*no attribute 'text'"),
        ("\n\n{{ source", r"mine.txt:3: "),
        ("{{ instruction }}\n", r"mine.txt: does not use \{\{ source \}\}"),
    ],
)
def test_a_faulty_template_is_named_with_its_line(tmp_path: Path, template: str, message: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(template)
    with pytest.raises(Refused, match=f"^template=.*{message}"):
        Prompt(str(file), "\n")


def test_an_unknown_template_and_an_empty_stop_are_refused() -> None:
    with pytest.raises(
        Refused, match="^template=pears: neither a readable file nor one of labelled, llm_jp_eval, pairs"
    ):
        Prompt("pears", "\n")
    with pytest.raises(Refused, match="^stop=''"):
        Prompt("pairs", "")


def test_an_answer_ends_before_the_stop_and_is_normalised() -> None:
    assert Prompt("pairs", "\n").answer(" ＡＢ １\nmore\n") == "AB 1"
    assert Prompt("llm_jp_eval", "\n\n").answer("ｶﾞ\nb\n\nc") == "ガ\nb"
    assert Prompt("llm_jp_eval", "\n\n").answer("\n\nlate") == ""


@pytest.fixture(scope="module")
def shipped() -> Any:
    return load_tokenizer(EMBEDDED.parent / "tokenizer", False, None)


def test_a_pair_prompt_with_its_reference_is_a_pair_document_of_pre_training(shipped: Any) -> None:
    found = [
        task_ids(task, Prompt("pairs", "\n"), shipped, None).texts[0]
        for task in PairTasks("embedded", "shipped", "shipped", 2, 1, 64).read()
    ]
    (into_ja, _) = PairTasks("embedded", "shipped", "shipped", 2, 1, 64).read()

    def ids(texts: list[str]) -> tuple[Any, ...]:
        return tuple(np.array(row, np.int32) for row in shipped(texts, add_special_tokens=False).input_ids)

    sides = zip(*(*into_ja.shots, *into_ja.examples), strict=True)
    group = Group(tuple(ids(list(side)) for side in sides))
    bos, newline = shipped.bos_token_id, shipped.convert_tokens_to_ids("<0x0A>")
    lexicon = np.full((2, len(shipped)), -1, np.int32)
    read = {
        tuple(document.tolist())
        for epoch in range(10)
        for document in epoch_documents([group], lexicon, Mix(1.0, 0.0, 0.0), bos, newline, 0, epoch)
    }
    assert read == set(map(tuple, found))


def test_what_follows_the_start_is_the_reference(shipped: Any) -> None:
    for task in PairTasks("embedded", "shipped", "shipped", 2, 50, 64).read():
        ids = task_ids(task, Prompt("pairs", "\n"), shipped, None)
        references = [text[start:] for text, start in zip(ids.texts, ids.starts, strict=True)]
        assert shipped.batch_decode(references) == [example.reference for example in task.examples]
        assert ids.prompts == [text[:start] for text, start in zip(ids.texts, ids.starts, strict=True)]


def test_a_token_across_the_border_is_of_the_reference() -> None:
    letters = {"a": 0, "b": 1, ":": 2, ":b": 3, "x": 4, "\n": 5, " ": 6}
    model = models.BPE(vocab=letters, merges=[(":", "b")])
    written = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))
    tokenizer = TextTokenizer(written, written.backend_tokenizer, (), Path())
    task = Task("t", "a", "x", "", (), (TranslationExample("a", "ba"),), 5)
    ids = task_ids(task, Prompt("labelled", "\n"), tokenizer, None)  # "a: a\nx:" and "ba"
    assert (ids.prompts, ids.texts, ids.starts) == ([[0, 2, 6, 0, 5, 4, 2]], [[0, 2, 6, 0, 5, 4, 3, 0]], [6])


def test_texts_longer_than_the_lm_takes_are_refused(shipped: Any) -> None:
    (task, _) = PairTasks("embedded", "shipped", "shipped", 2, 1, 10).read()
    (prompt,) = task_ids(task, Prompt("pairs", "\n"), shipped, None).prompts
    assert task_ids(task, Prompt("pairs", "\n"), shipped, len(prompt) + 10)
    with pytest.raises(Refused, match=f"^shots=2: .* up to {len(prompt) + 10} tokens"):
        task_ids(task, Prompt("pairs", "\n"), shipped, len(prompt) + 9)
    with pytest.raises(Refused, match="^shots=2"):  # the reference is the longest here
        task_ids(replace(task, max_new_tokens=1), Prompt("pairs", "\n"), shipped, len(prompt) + 2)


def test_special_tokens_of_a_template_are_special_and_those_filled_in_are_text(shipped: Any, tmp_path: Path) -> None:
    template = tmp_path / "chat.txt"
    template.write_text("<s>{{ source }}</s>{% for s in shots %}{{ s.source }}{{ s.reference }}{% endfor %}\n")
    task = Task(
        "t", "a", "b", "", (TranslationExample("</s>", "<pad>"),), (TranslationExample("x </s> y", "z <s>"),), 5
    )
    ids = task_ids(task, Prompt(str(template), "\n"), shipped, None)
    special = [token for token in ids.texts[0] if token in shipped.all_special_ids]
    assert special == [shipped.bos_token_id, shipped.eos_token_id]  # BOS once, though the template has it too
    assert shipped.decode(ids.texts[0][ids.starts[0] :]) == "z <s>"
    assert shipped.decode(ids.prompts[0]).count("</s>") == 3
    plain = task_ids(task, Prompt("pairs", "\n"), shipped, None)
    for row in (*plain.prompts, *plain.texts):
        assert [token for token in row if token in shipped.all_special_ids] == [shipped.bos_token_id]


def test_without_offsets_a_reference_begins_where_the_ids_of_its_prompt_end(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    bytes_ = load_tokenizer(tmp_path, False, 384)
    task = Task("t", "a", "b", "", (), (TranslationExample("彼女", "she"), TranslationExample("é", "e</s>")), 5)
    ids = task_ids(task, Prompt("pairs", "\n"), bytes_, None)
    assert [bytes_.decode(text[start:]) for text, start in zip(ids.texts, ids.starts, strict=True)] == ["she", "e</s>"]


def test_a_reference_without_tokens_is_refused(shipped: Any) -> None:
    task = Task("t", "a", "b", "", (), (TranslationExample("a", ""),), 5)
    with pytest.raises(Refused, match="^^tasks='': is a reference without any token"):
        task_ids(task, Prompt("pairs", "\n"), shipped, None)
