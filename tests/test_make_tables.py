"""docs/make_tables.py: the tables of README.md and docs/."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

sys.path.insert(0, str(ROOT / "docs"))
import make_tables  # type: ignore[import-not-found]  # noqa: E402

PAGES = {page: page.read_text(encoding="utf-8") for page in make_tables.PAGES}


def test_every_marked_table_is_made_by_an_entry_and_stands_on_one_page() -> None:
    text = "\n".join(PAGES.values())
    marked = re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end: (\w+) -->", text, re.DOTALL)
    names = [name for name, _, _ in marked]
    assert {"cells", "controls", "interventions", "ladders"} <= set(names) <= set(make_tables.ENTRIES)
    assert len(names) == len(set(names)) == text.count("<!-- table:")
    for name, table, end in marked:
        columns = {line.count("|") for line in table.splitlines()}
        assert name == end and len(columns) == 1 and len(table.splitlines()) > 2, name


def test_the_table_of_shipped_lms_is_the_one_on_its_page(tmp_path: Path) -> None:
    copies = [tmp_path / page.name for page in PAGES]
    for copy, text in zip(copies, PAGES.values(), strict=True):
        copy.write_text(text.replace("| `embedded_control` |", "| `another` |"), encoding="utf-8")
    make_tables.make(tmp_path / "results", ["ladders"], [], copies, pictures=False)
    (page,) = [page for page, text in PAGES.items() if "<!-- table: ladders -->" in text]
    assert (tmp_path / page.name).read_text(encoding="utf-8") == PAGES[page]


def test_a_table_on_no_page_is_printed_and_one_on_two_pages_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [tmp_path / "one.md", tmp_path / "two.md"]
    for page in pages:
        page.write_text("no table\n", encoding="utf-8")
    make_tables.make(tmp_path / "results", ["ladders"], [], pages, pictures=False)
    assert "| `embedded_d64` | main recipe at d_model 64 |" in capsys.readouterr().out
    for page in pages:
        page.write_text("<!-- table: ladders -->\nold\n<!-- end: ladders -->\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"2 tables ladders .*one\.md, .*two\.md"):
        make_tables.make(tmp_path / "results", ["ladders"], [], pages, pictures=False)
    assert "old" in pages[0].read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_table_of_cells_is_made_by_its_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: cells -->\nold\n<!-- end: cells -->\nafter\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "docs" / "make_tables.py"), str(tmp_path / "results"), *TINY, "layer=1"]
    subprocess.run([*command, "--only", "cells", "--no-pictures", "--page", str(page)], check=True)
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[2] == "| LM step | layer 1 |" and re.fullmatch(r"\| 512 \| [0-9.]+ / [0-9.]+ \|", lines[4])
