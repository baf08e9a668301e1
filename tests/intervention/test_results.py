import json
from pathlib import Path

import pytest

from bisae.intervention.results import FILE, InterventionResult, measured_results
from bisae.intervention.specs import PLAIN, EditSettings, planned
from bisae.lm.model import Checkpoint
from tests.intervention.small_results import Marked
from tests.intervention.test_specs import CONTROLS, features


def lm(step: int, weights: str) -> Checkpoint:
    return Checkpoint("lm", step, Path("somewhere"), weights, "tokenizer", None, 4, 8)


def planned_rows(output: Path, donor: Checkpoint, kind: list[str]) -> list[InterventionResult]:
    layers = {2: features()}
    settings = planned(layers, ["en", "ja"], EditSettings("add", "donor", [0.5]), kind, CONTROLS, None, 0)
    return [
        InterventionResult.planned(output, one, lm(512, "mid"), donor, layers, "text", "float32") for one in settings
    ]


def test_every_setting_is_another_row_and_only_those_with_a_donor_depend_on_it(tmp_path: Path) -> None:
    rows = planned_rows(tmp_path, lm(2048, "final"), ["en", "ja"])
    other = planned_rows(tmp_path, lm(2048, "another"), ["en", "ja"])
    assert len({row.folder for row in rows}) == len(rows) == 11
    same = {row.axes["control"] for row, changed in zip(rows, other, strict=True) if row.folder == changed.folder}
    assert same == {"", "self"} and rows[0].folder == other[0].folder  # "": none
    assert sum(row.folder == changed.folder for row, changed in zip(rows, other, strict=True)) == 3
    assert rows[0].axes == {"model": "lm", "recipient": 512, "kind": "none", "control": ""}
    assert rows[1].axes["sae"] == "topk-hash2" and rows[1].axes["features"] == 6
    assert PLAIN.kind == "none"


def test_a_row_is_in_the_table_once_all_its_measures_are_there(tmp_path: Path) -> None:
    rows = planned_rows(tmp_path, lm(2048, "final"), ["en"])
    one, other = Marked(1), Marked(2)
    for row in rows:
        row.keep(one, one.of(None), {"size": 0.5})  # type: ignore[arg-type]
    rows[2].keep(other, other.of(None), {})  # type: ignore[arg-type]
    assert [row.folder for row in measured_results(tmp_path, [one], [])] == sorted(row.folder for row in rows)
    assert measured_results(tmp_path, [one, other], rows) == [rows[2]]
    assert rows[0].read(one).attrs == {"size": 0.5} and rows[2].read(other)["number"].tolist() == [2]
    assert not rows[0].has(other) and measured_results(tmp_path, [Marked(3)], rows) == []


@pytest.mark.parametrize("rules", ["rules", "other"])
def test_rows_of_the_same_saes_by_other_rules_are_left_out(tmp_path: Path, rules: str) -> None:
    rows, one = planned_rows(tmp_path, lm(2048, "final"), ["en"]), Marked(1)
    for row in rows:
        row.keep(one, one.of(None), {})  # type: ignore[arg-type]
    asked = [
        InterventionResult(row.folder.with_name("new"), {**row.axes, "rules": rules}, row.identity) for row in rows[1:2]
    ]
    asked[0].keep(one, one.of(None), {})  # type: ignore[arg-type]
    found = measured_results(tmp_path, [one], asked)
    assert len(found) == (1 + len(rows) if rules == "rules" else 2)  # the plain LM is by no rules


def test_rows_in_another_dtype_are_left_out(tmp_path: Path) -> None:
    rows, one = planned_rows(tmp_path, lm(2048, "final"), ["en"]), Marked(1)
    for row in rows:
        row.keep(one, one.of(None), {})  # type: ignore[arg-type]
    half = InterventionResult(
        tmp_path / "rows" / "half", rows[0].axes, {"lm": {**rows[0].identity["lm"], "dtype": "bfloat16"}}
    )
    half.keep(one, one.of(None), {})  # type: ignore[arg-type]
    assert len(measured_results(tmp_path, [one], rows)) == len(rows)
    assert len(measured_results(tmp_path, [one], [half])) == 1


def test_a_row_says_what_it_is_before_it_says_what_was_measured(tmp_path: Path) -> None:
    (row, *_), one = planned_rows(tmp_path, lm(2048, "final"), ["en"]), Marked(1)
    row.keep(one, one.of(None), {})  # type: ignore[arg-type]
    (row.folder / FILE).unlink()
    assert not row.has(one)
    row.keep(one, one.of(None), {})  # type: ignore[arg-type]
    assert json.loads((row.folder / FILE).read_text())["axes"] == row.axes
