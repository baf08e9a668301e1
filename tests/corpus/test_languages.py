"""A language has one code, whatever it is called in files and on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bisae.corpus.jsonl import JsonlCorpus
from bisae.corpus.languages import code_of, codes_of, plain_of, script_of
from bisae.corpus.pairs import Pair, read_pairs, write_pairs
from bisae.features.measures.language import check_script_languages, class_names
from bisae.intervention.kinds import feature_set
from bisae.intervention.specs import checked_kinds
from bisae.report.interventions.blocks import metrics_of
from bisae.runtime.errors import Refused
from bisae.translation.llm_jp_eval import LlmJpEvalTasks
from bisae.translation.tasks import JsonlTasks

JAPANESE = ("ja", "jpn", "JA", "ja-JP", "ja_JP", "jpn_Jpan", "Japanese")


def jsonl(folder: Path, *names: str) -> JsonlCorpus:
    file = folder / "text.jsonl"
    file.write_text('{"text": "a"}\n')
    return JsonlCorpus("mine", "text", 0, 10, {"sae": 1.0}, dict.fromkeys(names, str(file)))


@pytest.mark.parametrize("name", JAPANESE)
def test_japanese_is_japanese_by_any_of_its_codes(tmp_path: Path, name: str) -> None:
    assert jsonl(tmp_path, "eng", name).languages == ("en", "ja")
    assert [one.text for one in jsonl(tmp_path, "eng", name).documents("sae", 1)] == ["a"]
    write_pairs(tmp_path / "pairs.tsv", ("EN", name), [Pair(0, ("a", "犬"))])
    assert read_pairs(tmp_path / "pairs.tsv")[0] == ("en", "ja")
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"a": "dog", "b": "犬"}\n')
    into, _ = JsonlTasks("mine", str(file), {"en_US": "a", name: "b"}, 0, None, 9).read()
    assert (into.name, into.source_language, into.target_language) == ("mine-en-ja", "en", "ja")
    check_script_languages(codes_of(["en", name]))
    assert class_names(codes_of([name])) == {"ja": "Japanese"}
    assert checked_kinds(["bi", name, [3]], ("en", "ja")) == ["bi", "ja", [3]]


@pytest.mark.parametrize(
    ("name", "code", "script"),
    [
        ("cmn", "zh", "Hans"),
        ("zh-Hans", "zh", "Hans"),
        ("zho_Hant", "zh-Hant", "Hant"),
        ("zh-tw", "zh-TW", "Hant"),
        ("pt-BR", "pt", "Latn"),
        ("pt-PT", "pt-PT", "Latn"),
        ("iw", "he", "Hebr"),
        ("arb", "ar", "Arab"),
        ("ja-Latn", "ja-Latn", "Latn"),
        ("kor", "ko", "Kore"),
        ("x-mine", "x-mine", None),
        ("qaa", "qaa", None),
        ("und", "und", None),
    ],
)
def test_a_code_is_the_shortest_that_tells_the_language_and_has_a_script(name: str, code: str, script: str) -> None:
    assert code_of(name) == code_of(code) == code and script_of(code) == script


@pytest.mark.parametrize("name", ["", " ", "all", "ALL", "bi", "bis", "Mixed", "dead", "none", False, None])
def test_what_cannot_be_a_language_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="means something else|needs quotes"):
        code_of(name)


@pytest.mark.parametrize("name", ["klingon", "jp", "cn", "xx", "mine", "日本語", "fr-books"])
def test_of_a_name_that_is_no_code_nothing_is_taken_for_granted(name: str) -> None:
    assert code_of(name) == name == plain_of(name) and script_of(name) is None
    assert class_names([name]) == {name: name} and checked_kinds(name, ()) == [name]
    with pytest.raises(Refused, match="language=script"):
        check_script_languages(("en", name))


def test_two_names_of_one_language_are_refused_by_key(tmp_path: Path) -> None:
    one = "'ja' and 'jpn' are one language, ja"
    with pytest.raises(Refused, match=rf"^files={{ja, jpn}}: {one}"):
        jsonl(tmp_path, "ja", "jpn")
    write_pairs(tmp_path / "pairs.tsv", ("ja", "jpn"), [])
    with pytest.raises(ValueError, match=f"pairs.tsv:1: {one}"):
        read_pairs(tmp_path / "pairs.tsv")
    with pytest.raises(Refused, match=f"^keys=.*{one}"):
        JsonlTasks("t", "no file", {"ja": "a", "jpn": "b"}, 0, None, 9).read()
    with pytest.raises(Refused, match=f"^(directions|alt)=.*{one}"):
        LlmJpEvalTasks("no folder", "test", {"alt": ["ja", "jpn"]}, 0, None, 9).read()
    with pytest.raises(Refused, match=r"^files={en, all}: 'all' means something else"):
        jsonl(tmp_path, "en", "all")


def test_the_script_rule_knows_english_of_every_region_and_no_romanised_japanese() -> None:
    check_script_languages(("en-GB", "ja"))
    for languages in (("en", "ja-Latn"), ("en", "fr"), ("ja",)):
        with pytest.raises(Refused, match="language=script"):
            check_script_languages(languages)
    assert [plain_of(code) for code in ("en-GB", "ja-Latn", "x-mine", "zh-TW")] == ["en", "ja-Latn", "x-mine", "zh-TW"]


def test_a_kind_that_is_no_code_is_refused_with_what_there_is() -> None:
    table = pd.DataFrame({"class": ["zh-TW", "English"], "bilingual": False, "aligned": False})
    (kind,) = checked_kinds("zh-tw", ())
    assert feature_set(table, kind, ("en", "zh-TW")).tolist() == [True, False]
    with pytest.raises(Refused, match="kind=klingon: choose one of none, en, zh-TW"):
        feature_set(table, checked_kinds("klingon", ())[0], ("en", "zh-TW"))


def test_columns_of_regions_have_titles_in_their_own_spelling() -> None:
    table = pd.DataFrame({"perplexity_zh-TW": [1.0], "bleu_en_zh-TW": [np.nan], "chrf_en_zh-TW": [2.0]})
    assert [metric.title for metric in metrics_of(table, ["en", "zh-TW"])] == ["PPL Zh-TW ↓", "chrF En→Zh-TW ↑"]


def test_names_as_json_keys_stay_the_users(tmp_path: Path) -> None:
    """A message about a language's file names the language as it was typed."""
    corpus = jsonl(tmp_path, "jpn")
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "b"}))
    text: Any = next(iter(corpus.records("jpn")))
    assert text == {"text": "b"}
