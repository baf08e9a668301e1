import json
from dataclasses import replace
from pathlib import Path

import pytest

from bisae.runtime.errors import Refused
from bisae.translation.tasks import JsonlTasks, PairTasks, TranslationExample

ROWS = [{"french": f"f{n}", "german": f"d{n}", "more": n} for n in range(5)]


@pytest.fixture
def tasks(tmp_path: Path) -> JsonlTasks:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return JsonlTasks("mine", str(file), {"fr": "french", "de": "german"}, 2, None, 9)


def test_the_first_objects_are_the_shots_of_the_others(tasks: JsonlTasks) -> None:
    into_de, into_fr = tasks.read()
    assert (into_de.name, into_fr.name) == ("mine-fr-de", "mine-de-fr")
    assert into_de.shots == (TranslationExample("f0", "d0"), TranslationExample("f1", "d1"))
    assert into_fr.examples == (
        TranslationExample("d2", "f2"),
        TranslationExample("d3", "f3"),
        TranslationExample("d4", "f4"),
    )
    assert len(replace(tasks, examples=1).read()[0].examples) == 1


def test_too_few_objects_are_refused(tasks: JsonlTasks) -> None:
    with pytest.raises(Refused, match="^shots=6: .*pairs.jsonl holds 5"):
        replace(tasks, shots=6).read()
    for examples, number in ((1, 1), (None, 0)):
        with pytest.raises(Refused, match=f"^examples={number}: .* after its 5 shots holds 0"):
            replace(tasks, shots=5, examples=examples).read()


@pytest.mark.parametrize(
    "line", ['{"french": "a"}', '{"french": "a", "german": " "}', '{"french": "a", "german": 1}', "[]"]
)
def test_an_object_without_both_texts_is_named_by_line(tasks: JsonlTasks, line: str) -> None:
    with Path(tasks.file).open("a") as file:
        file.write("\n" + line + "\n")  # a blank line counts
    with pytest.raises(Refused, match=r"^keys=french, german: .*pairs.jsonl:7 has not a text"):
        tasks.read()


def test_what_is_no_json_is_named_by_line(tasks: JsonlTasks) -> None:
    with Path(tasks.file).open("a") as file:
        file.write('{"french": ')
    with pytest.raises(Refused, match=r"^file=.*pairs.jsonl:6: cannot be read as JSON"):
        tasks.read()
    with pytest.raises(Refused, match="^file=.*No such file"):
        replace(tasks, file="nowhere.jsonl").read()


def test_one_language_is_refused(tasks: JsonlTasks) -> None:
    with pytest.raises(Refused, match="^keys=.*two languages"):
        replace(tasks, keys={"fr": "french"}).read()


SHIPPED = PairTasks("embedded", "shipped", "shipped", shots=2, examples=3, max_new_tokens=64)


def test_the_shipped_pairs_are_a_task_each_way() -> None:
    into_ja, into_en = SHIPPED.read()
    assert (into_ja.name, into_ja.source_language, into_ja.target_language) == ("embedded-en-ja", "en", "ja")
    assert into_ja.examples[0] == TranslationExample("This is not my type.", "私のタイプじゃない。")
    assert into_en.examples == tuple(TranslationExample(ja, en) for en, ja in into_ja.examples)
    assert into_en.shots[0] == TranslationExample("僕はこれっきりで禁煙する。", "I'm off cigarettes for good.")
    assert (len(into_ja.examples), len(into_ja.shots), into_ja.max_new_tokens) == (3, 2, 64)
    assert len(replace(SHIPPED, examples=None).read()[0].examples) == 1200


def test_more_shots_or_examples_than_there_are_is_refused() -> None:
    for key, number in (("shots", 121), ("shots", -1), ("examples", 1201), ("examples", 0)):
        with pytest.raises(Refused, match=f"^{key}={number}: .* shipped holds"):
            replace(SHIPPED, **{key: number}).read()  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    with pytest.raises(Refused, match="^pairs=.*No such file"):
        replace(SHIPPED, pairs=str(pairs)).read()
    pairs.write_text("id\ten\tja\n1\ta\tb\n2\tc\n")
    with pytest.raises(Refused, match="^shot_pairs=.*pairs.tsv:3"):
        replace(SHIPPED, shot_pairs=str(pairs)).read()


def test_shots_in_other_languages_are_refused(tmp_path: Path) -> None:
    (tmp_path / "shots.tsv").write_text("id\ten\tfr\n1\ta\tb\n")
    with pytest.raises(Refused, match="^shot_pairs=.*needs the languages"):
        replace(SHIPPED, shot_pairs=str(tmp_path / "shots.tsv")).read()
