"""docs/make_tables.py: the tables of README.md."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, TINY

sys.path.insert(0, str(ROOT / "docs"))
import make_tables  # type: ignore[import-not-found]  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_marked_table_of_the_readme_is_made_by_an_entry_and_is_a_table() -> None:
    marked = re.findall(r"<!-- table: (\w+) -->\n(.*?)<!-- end: (\w+) -->", README, re.DOTALL)
    assert {name for name, _, _ in marked} <= set(make_tables.ENTRIES) and len(marked) == README.count("<!-- table:")
    for name, text, end in marked:
        columns = {line.count("|") for line in text.splitlines()}
        assert name == end and len(columns) == 1 and len(text.splitlines()) > 2, name


def test_the_table_of_shipped_lms_is_what_the_readme_has(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(README, encoding="utf-8")
    make_tables.make(tmp_path / "results", ["ladders"], [], page, pictures=False)
    assert page.read_text(encoding="utf-8") == README


def test_the_table_of_cells_is_made_by_its_command(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: cells -->\nold\n<!-- end: cells -->\nafter\n", encoding="utf-8")
    command = [sys.executable, str(ROOT / "docs" / "make_tables.py"), str(tmp_path / "results"), *TINY, "layer=1"]
    subprocess.run([*command, "--only", "cells", "--no-pictures", "--page", str(page)], check=True)
    lines = page.read_text(encoding="utf-8").splitlines()
    assert lines[2] == "| LM step | layer 1 |" and re.fullmatch(r"\| 512 \| [0-9.]+ / [0-9.]+ \|", lines[4])
