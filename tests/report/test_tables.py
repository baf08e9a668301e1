import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from bisae.report.averages import averages
from bisae.report.bins import PHASES, RANDOM
from bisae.report.examples import Examples
from bisae.report.tables import write_tables
from tests.report.sweep import BINS, sweep

SWEEP = sweep(("small", "main", "control"), (0, 128, 1024, 2048))
KINDS, EXAMPLES = ["features", "sae_seeds"], Examples(2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tables")
    names = [path.name for path in write_tables(SWEEP.cells, SWEEP.read, BINS, KINDS, EXAMPLES, folder)]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    return folder


def rows(path: Path) -> list[list[str]]:
    """The cells of a Markdown table, header first."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [line.strip("| ").split(" | ") for line in [lines[0], *lines[2:]]]


@pytest.mark.slow
def test_every_table_is_written_as_csv_markdown_and_latex(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"{name}.{end}"
        for name in ("phases", "layers", "sizes", "languages", "examples")
        for end in ("csv", "md", "tex")
    }


def test_phases_stand_beside_random_weights_and_the_control(folder: Path) -> None:
    header, *body = rows(folder / "phases.md")
    assert header[:6] == ["LM", "phases", "cells", "Mixed", "shuffled", "monosemanticity"]
    lms = ("small", "main", "control (control)")
    assert [row[:2] for row in body] == [[lm, phase] for lm in lms for phase in (RANDOM, *PHASES)]


def test_layers_and_sizes_are_of_the_final_checkpoint_and_of_random_weights(folder: Path) -> None:
    lms = [row[0] for row in rows(folder / "layers.md")[1::3]]
    assert set(lms) == {
        f"{lm}{end}" for lm in ("small", "main", "control (control)") for end in ("", ", random weights")
    }
    assert {tuple(row[:3]) for row in rows(folder / "sizes.md")[1:]} == {
        (f"{kind}{end}", size, "4")
        for kind, size in (("trained", "small"), ("trained", "large"), ("control", "large"))
        for end in ("", ", random weights")
    }


def test_a_printed_number_is_the_mean_of_the_cells_with_its_intervals(folder: Path) -> None:
    late = BINS.label(SWEEP.cells).query("model == 'main' and phase == 'late'")
    expected = averages(late, ["lm"], ["Mixed"]).iloc[0]
    header, *body = rows(folder / "phases.md")
    shown = dict(zip(header, next(row for row in body if row[:2] == ["main", "late"]), strict=True))
    features = f"({expected['features_low']:.3f}, {expected['features_high']:.3f})<sup>f</sup>"
    seeds = f"({expected['sae_seeds_low']:.3f}, {expected['sae_seeds_high']:.3f})<sup>s</sup>"
    assert shown["Mixed"] == f"{expected['value']:.3f} {features} {seeds}"
    assert re.fullmatch(r"\d+ \(\d+, \d+\)<sup>s</sup>", shown["alive"])


def test_the_csv_has_the_numbers_of_every_metric_and_kind_of_interval(folder: Path) -> None:
    found = pd.read_csv(folder / "layers.csv").query("LM == 'main' and layers == 'upper'").set_index("metric")
    cells = SWEEP.cells.query("model == 'main' and step == 2048 and layer == 4")
    for metric in ("Mixed", "firing_English", "alignment", "fvu"):
        assert found.at[metric, "value"] == pytest.approx(cells[metric].mean())
    assert found.at["monosemanticity", "null"] == pytest.approx(cells["monosemanticity_null"].mean())
    assert found.at["Mixed", "documents_low"] == pytest.approx(cells["Mixed_doc_low"].mean())


def test_the_foot_says_what_the_intervals_are_over_and_what_the_bins_are(folder: Path) -> None:
    text = (folder / "phases.md").read_text(encoding="utf-8")
    assert "f: 95 % interval over features" in text and "s: 95 % interval over SAE seeds" in text
    assert "LM seeds" not in text  # none was given, so none is shown
    assert "Early: up to 10% of the last step; middle: up to 50% of the last step" in text
    assert "s: 95 \\% interval over SAE seeds" in (folder / "phases.tex").read_text(encoding="utf-8")


def test_sizes_are_left_out_if_all_lms_are_equally_large(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = sweep(("main",), (2048,), (0,))
    with caplog.at_level("INFO"):
        write_tables(some.cells, some.read, BINS, KINDS, EXAMPLES, tmp_path)
    assert "no table of sizes" in caplog.text
    assert not (tmp_path / "sizes.md").exists() and (tmp_path / "phases.md").exists()


def test_saes_of_another_width_are_other_rows(tmp_path: Path) -> None:
    some = sweep(("main",), (2048,), (0,))
    wide = some.cells.assign(setting="topk 240 k=8", Mixed=0.5)
    write_tables(pd.concat([some.cells, wide]), some.read, BINS, KINDS, EXAMPLES, tmp_path)
    header, *body = rows(tmp_path / "phases.md")
    assert [dict(zip(header, row, strict=True))["setting"] for row in body] == ["topk 120 k=8", "topk 240 k=8"]
    assert body[1][4].startswith("0.500 ") and not body[0][4].startswith("0.500 ")


def test_baselines_are_rows_below_trained_saes_and_in_the_examples(tmp_path: Path) -> None:
    own = SWEEP.cells.query("model == 'main'")
    cells = pd.concat([own.assign(baseline="soft_frozen_decoder"), own], ignore_index=True)
    write_tables(cells, SWEEP.read, BINS, KINDS, EXAMPLES, tmp_path)
    header, *body = rows(tmp_path / "layers.md")
    assert header[:4] == ["LM", "SAE", "layers", "cells"]
    assert [row[1] for row in body[:6]] == ["trained"] * 3 + ["soft frozen decoder"] * 3
    assert {row[0] for row in rows(tmp_path / "examples.md")[1:]} >= {"late", "late, soft frozen decoder"}


def test_examples_are_the_features_that_the_rule_gives(folder: Path) -> None:
    found = pd.read_csv(folder / "examples.csv")
    assert set(found["lm"]) == {"main"} and set(found["layer"]) == {2}
    assert found.drop_duplicates("phase")["step"].tolist() == [0, 128, 1024, 2048]
    features = SWEEP.read("main/2048/2/0", "features").query("`class` == 'English' and not single_token")
    low, high = features["monosemanticity"].quantile(0.4), features["monosemanticity"].quantile(0.6)
    expected = features[features["monosemanticity"].between(low, high)].sort_values("firings", ascending=False)
    late = found.query("phase == 'late' and language == 'English'")
    assert late["feature"].unique().tolist() == expected["feature"].head(2).tolist()
    assert set(found.query("phase == 'late'")["language"]) == {"English", "Japanese", "Mixed", "bilingual"}


def test_examples_show_the_first_contexts_with_the_peak_marked(folder: Path) -> None:
    with open(folder / "examples.csv", encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    contexts = SWEEP.read("main/0/2/0", "contexts").query(f"feature == {first['feature']}")
    pieces = list(
        SWEEP.read("main/0/2/0", "sequences").set_index("sequence").at[contexts["sequence"].iloc[0], "pieces"]
    )
    assert [first["before"], first["peak"], first["after"]] == ["".join(pieces[:3]), pieces[3], "".join(pieces[4:8])]
    assert rows(folder / "examples.md")[1][1].count("<b>") == 3
    tex = (folder / "examples.tex").read_text(encoding="utf-8")
    assert r"\hl{ 100\%\_of}" in tex and r"\hl{儀式}" in tex
