import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from bisae.report.interventions.generations import differences, examples_of, generations_markdown, generations_page
from bisae.report.markup import Piece

HOSTILE = '<script>alert("x")</script> & a|b *c*'


def answer(kind: str, text: str, **other: Any) -> dict[str, Any]:
    none = kind == "none"
    made: dict[str, Any] = {"model": "main", "recipient": 512, "layers": "" if none else "2", "kind": kind}
    made |= {"control": "", "seed": None, "coefficient": None if none else 1.0, "mode": "" if none else "add"}
    made |= {
        "hash": "0",
        "task": "en_ja",
        "example": 0,
        "source": "The dog.",
        "reference": "犬。",
        "answer": text,
        "loss": 2.5,
    }
    return made | other


GENERATIONS = [
    answer("bi", "犬が好き。"),
    answer("none", "猫が好き。"),
    answer("bi", "車。", control="random", seed=1),
    *(
        answer(kind, text, source=f"Sentence {number}.", reference=HOSTILE)
        for number in range(7)
        for kind, text in (("none", HOSTILE), ("bi", HOSTILE))
    ),
    answer("none", "there was a cat", task="continuation", source="Once", reference="", loss=None),
    answer("bi", "there was a Ｄog", task="continuation", source="Once", reference="", loss=None),
]


def test_an_example_has_the_answers_of_one_source_none_first() -> None:
    first = examples_of(GENERATIONS)[0]
    assert (first.task, first.place, first.source, first.reference) == ("en_ja", "main, step 512", "The dog.", "犬。")
    assert [one.label for one in first.answers] == ["–", "Bi, layer 2, add ×1", "random 1 (as Bi), layer 2, add ×1"]
    assert [one.loss for one in first.answers] == ["2.500"] * 3
    assert len(examples_of(GENERATIONS)) == 9


def test_another_checkpoint_or_model_is_another_example() -> None:
    others = [answer("none", "a"), answer("none", "a", recipient=128), answer("none", "a", model="control")]
    assert [one.place for one in examples_of(others)] == ["main, step 512", "main, step 128", "control, step 512"]


@pytest.mark.parametrize(
    ("plain", "text", "marked"),
    [
        ("He saw a dog.", "He saw two dogs.", ["two", "dogs"]),  # words, not letters
        ("猫が好き。", "犬が好き。", ["犬"]),
        ("same", "same", []),
        ("", "new", ["new"]),
        (None, "nothing to compare with", []),
        ("gone", "", []),
    ],
)
def test_what_differs_from_the_answer_of_none_is_marked(plain: str | None, text: str, marked: list[str]) -> None:
    pieces = differences(plain, text)
    assert [piece.text for piece in pieces if piece.style] == marked
    assert "".join(piece.text for piece in pieces) == text


def test_none_itself_is_never_marked() -> None:
    for example in examples_of(GENERATIONS):
        assert list(example.answers[0].pieces) == [Piece("".join(p.text for p in example.answers[0].pieces))]


def test_the_page_shows_text_as_it_is_and_asks_for_nothing() -> None:
    page = generations_page(GENERATIONS)
    assert HOSTILE not in page and HOSTILE in unescape(page)
    assert page.count("<script") == 1 and "http" not in page and "src=" not in page
    assert "<mark>犬</mark>が好き。" in page


def test_the_markdown_has_the_first_examples_of_each_task() -> None:
    text = generations_markdown(GENERATIONS)
    assert text.count("# en_ja, main, step 512") == 5 and text.count("# continuation, main, step 512") == 1
    assert "| Bi, layer 2, add ×1 | <b>犬</b>が好き。 | 2.500 |" in text
    assert "Sentence 3." in text and "Sentence 4." not in text
    continuation = text.split("# continuation")[1]
    assert "| reference |" not in continuation and "| – | there was a cat |  |" in continuation


@pytest.fixture
def page(tmp_path: Path, driver: Any) -> Iterator[Any]:
    """The page in Chromium; fails at the end if it has complained or asked for another file."""
    path = tmp_path / "generations.html"
    path.write_text(generations_page(GENERATIONS), encoding="utf-8")
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(path.as_uri())
    yield driver
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    assert asked == {path.as_uri()}
    assert driver.get_log("browser") == []


def test_the_page_filters_by_task_and_by_text(page: Any) -> None:
    def shown(task: str, query: str) -> tuple[int, str]:
        script = """
        document.getElementById("task").value = arguments[0];
        document.getElementById("query").value = arguments[1];
        document.forms[0].dispatchEvent(new Event("input"));
        const shown = [...document.querySelectorAll("article")].filter(one => one.offsetHeight > 0);
        return [shown.length, document.getElementById("count").textContent];
        """
        number, count = page.execute_script(script, task, query)
        return number, count

    assert shown("", "") == (9, "9 of 9 examples")
    assert shown("continuation", "") == (1, "1 of 9 examples")
    assert shown("", "sentence 3") == (1, "1 of 9 examples")
    assert shown("", "A dog") == (1, "1 of 9 examples")  # full-width letters are found too
    assert shown("en_ja", "once") == (0, "0 of 9 examples")
    assert shown("", "random 1 (as Bi)") == (1, "1 of 9 examples")
