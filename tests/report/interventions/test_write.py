from pathlib import Path

import pandas as pd

from bisae.report.interventions.write import write_interventions
from tests.report.interventions.fixture import full_table, samples_of, slides_table
from tests.report.interventions.test_generations import GENERATIONS

TABLES = {f"tables/{name}.{end}" for name in ("interventions", "slides", "orderings") for end in ("md", "tex")}
TABLES |= {"tables/orderings.csv", "report.json"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_all_is_written_and_the_figures_are_named(tmp_path: Path) -> None:
    figures = write_interventions(tmp_path, slides_table(), {}, GENERATIONS, ["en", "ja"])
    drawn = {f"figures/{name}.{end}" for name in figures for end in ("png", "pdf")}
    assert drawn and files(tmp_path) == TABLES | drawn | {"generations.html", "generations.md"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures.values())
    assert "| Bi | 18.36 | 25.20 | 21.96 | 62.5 | 57.2 |" in (tmp_path / "tables" / "slides.md").read_text("utf-8")


def test_a_foot_that_tables_share_is_said_once_in_markdown_and_with_each_in_latex(tmp_path: Path) -> None:
    table = full_table((128, 512), kinds=("bi",), controls=(), names=("perplexity_en",))
    write_interventions(tmp_path, table, samples_of(table), [], ["en", "ja"])
    text, tex = ((tmp_path / "tables" / f"interventions.{end}").read_text("utf-8") for end in ("md", "tex"))
    assert (text.count("# main"), text.count("In brackets the change")) == (2, 1)
    assert (tex.count(r"\begin{tabular}"), tex.count("In brackets the change")) == (2, 2)
    held = pd.read_csv(tmp_path / "tables" / "orderings.csv")
    assert held["recipient"].tolist() == [128, 512] and set(held["holds"]) == {"yes"}


def test_without_interventions_or_metrics_or_generations_there_is_little_but_no_error(tmp_path: Path) -> None:
    plain = slides_table().query("kind == 'none'")
    nothing = slides_table().drop(columns=[name for name in slides_table() if name.startswith(("perp", "comet"))])
    for name, table in (("none", plain), ("unmeasured", nothing)):
        assert write_interventions(tmp_path / name, table, {}, [], ["en", "ja"]) == {}
        assert files(tmp_path / name) == TABLES


def test_kinds_that_the_slides_do_not_have_get_no_slides_table(tmp_path: Path) -> None:
    table = full_table((128,), kinds=("mixed",), controls=(), names=("perplexity_en",))
    write_interventions(tmp_path, table, {}, [], ["en", "ja"])
    assert not (tmp_path / "tables" / "slides.md").read_text().strip()
    assert "Mixed" in (tmp_path / "tables" / "interventions.md").read_text()
