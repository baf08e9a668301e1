import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bisae.runtime.errors import Refused
from bisae.translation.llm_jp_eval import LlmJpEvalTasks
from bisae.translation.tasks import TranslationExample


def write(folder: Path, split: str, **changes: Any) -> Path:
    samples = [{"input": f"{split} {n}", "output": f"出{n}"} for n in range(3)]
    content = {"instruction": "訳せ。", "output_length": 250, "metrics": ["bleu"], "few_shots": [], "samples": samples}
    path = folder / split / "alt-e-to-j.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content | changes, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> LlmJpEvalTasks:
    write(tmp_path, "test")
    write(tmp_path, "train")
    return LlmJpEvalTasks(str(tmp_path), "test", {"alt-e-to-j": ["en", "ja"]}, 2, None, None)


def test_shots_are_the_first_of_the_training_split(tasks: LlmJpEvalTasks) -> None:
    (task,) = tasks.read()
    assert (task.name, task.source_language, task.target_language) == ("alt-e-to-j", "en", "ja")
    assert task.shots == (TranslationExample("train 0", "出0"), TranslationExample("train 1", "出1"))
    assert [example.source for example in task.examples] == ["test 0", "test 1", "test 2"]
    assert (task.instruction, task.max_new_tokens) == ("訳せ。", 250)
    assert replace(tasks, max_new_tokens=7).read()[0].max_new_tokens == 7


def test_without_shots_no_training_split_is_needed(tasks: LlmJpEvalTasks) -> None:
    (Path(tasks.folder) / "train" / "alt-e-to-j.json").unlink()
    assert replace(tasks, shots=0).read()[0].shots == ()
    with pytest.raises(Refused, match="^folder=.*train/alt-e-to-j.json: cannot be read"):
        tasks.read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output_length": None}, "^max_new_tokens=None: .* give a number"),
        ({"instruction": None}, "has no `instruction`"),
        ({"samples": {}}, "has no list `samples`"),
        ({"samples": []}, "^examples=0: .* holds 0"),
        ({"samples": [{"input": "a", "output": "b"}, {"input": "a"}]}, "sample 1 lacks the text `input` or `output`"),
        ({"samples": ["a"]}, "sample 0 lacks the text `input` or `output`"),
    ],
)
def test_a_file_of_another_form_is_refused(tasks: LlmJpEvalTasks, changes: dict[str, Any], message: str) -> None:
    write(Path(tasks.folder), "test", **changes)
    with pytest.raises(Refused, match=message):
        tasks.read()


def test_a_direction_is_two_languages(tasks: LlmJpEvalTasks) -> None:
    with pytest.raises(Refused, match="^alt-e-to-j=en: must be"):
        replace(tasks, directions={"alt-e-to-j": "en"}).read()


def test_bad_json_is_named_with_its_line(tasks: LlmJpEvalTasks) -> None:
    path = write(Path(tasks.folder), "test")
    path.write_text(path.read_text().replace('"metrics": ', '"metrics" '))
    with pytest.raises(Refused, match="alt-e-to-j.json: cannot be read: .*line 4"):
        tasks.read()
