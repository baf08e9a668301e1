"""README.md and docs/: the tests, files and sections they name exist."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = {file: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")}
FUNCTIONS = {name for text in TESTS.values() for name in re.findall(r"^def (test_\w+)", text, re.M)}


def anchors(page: Path) -> set[str]:
    """The sections of a page, as links name them on GitHub."""
    headings = re.findall(
        r"^#+ (.*)", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_tests_a_page_names_exist(page: Path) -> None:
    """By file, by name, or by the beginning of a name and three dots."""
    text = page.read_text(encoding="utf-8")
    files = set(re.findall(r"(?<![\w/])tests/[\w/]+\.py\b", text))
    bare = set(re.findall(r"(?<![\w/])test_\w+\.py\b", text))
    names = set(re.findall(r"(?<![\w/])(test_\w+(?:\.\.\.)?)(?!\w|\.py)", text))
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert bare <= {file.name for file in TESTS}
    begun = {name.removesuffix("...") for name in names if name.endswith("...")}
    assert [name for name in begun if not any(function.startswith(name) for function in FUNCTIONS)] == []
    assert {name for name in names if not name.endswith("...")} <= FUNCTIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_to_files_and_sections_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        place, _, section = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        assert not section or section in anchors(file), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        links = {
            (page.parent / found) for page in new for found in re.findall(r"\]\(([\w/.]+\.md)", page.read_text("utf-8"))
        }
        new = {link.resolve() for link in links} - reached
    assert set(PAGES) <= reached


def test_the_readme_is_at_most_150_lines() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150
