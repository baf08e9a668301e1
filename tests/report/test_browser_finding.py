import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bisae.report.browser import BrowserCell, write_browser
from tests.report.browser_fixture import write_analysis
from tests.report.browser_page import FEATURES, Page, cell, features_of, matching

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ({"class": "Mixed"}, "`class` == 'Mixed'"),
        ({"class": "English,dead"}, "`class` in ['English', 'dead']"),
        ({"bilingual": 1}, "bilingual"),
        ({"several": 1, "sort": "-monosemanticity"}, "not single_token"),
        ({"mono": "0.2..0.5", "sort": "rate"}, "0.2 <= monosemanticity <= 0.5"),
        ({"align": "0.3..", "rate": "1e-3..1e-1", "sort": "-alignment"}, "alignment >= 0.3 and 1e-3 <= rate <= 1e-1"),
    ],
)
def test_filters_and_orders_equal_those_of_the_table(
    page: Page, cells: list[BrowserCell], link: dict[str, object], query: str
) -> None:
    page.open(cell=cells[0].name, **link)
    table = features_of(cells[0])
    floats = table.select_dtypes("float").columns
    table = table.astype(dict.fromkeys(floats, "float32")).query(query)
    key = str(link.get("sort", "-alignment"))
    expected = table.sort_values(key.removeprefix("-"), ascending=not key.startswith("-"), kind="stable").index
    assert 0 < len(expected) < FEATURES and page.listed() == list(expected)


def test_filters_are_set_by_hand_and_stand_in_the_address(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[0].name)
    page.find("input[value=Mixed]").find_element("xpath", "..").click()
    page.find("input[name=mono]").send_keys("0.3")
    page.find("#head button[title*=rate], #head > :last-child button").click()
    page.settle("link.get('class') === 'Mixed' && link.get('mono') === '0.3..' && link.get('sort') === '-rate'")
    table = features_of(cells[0]).query("`class` == 'Mixed' and monosemanticity >= 0.3")
    assert page.listed() == list(table.sort_values("rate", ascending=False).index)
    page.find("button[type=reset]").click()
    page.settle("!link.has('class') && !link.has('mono')")
    assert len(page.listed()) == FEATURES


@pytest.mark.parametrize(
    ("typed", "query", "where"),
    [
        ("DOG", "dog", "peak"),
        ("犬", "犬", "peak"),
        ("電車は", "電車は", "peak"),  # more than one token
        ("猫を見た", "猫を見た", "text"),
        ("abc", "abc", "text"),  # full width in the text
        ("ｄｏｇ ｌ", "dog l", "text"),
        ("nowhere", "nowhere", "text"),
    ],
)
def test_text_search_finds_the_features_whose_contexts_match(
    page: Page, cells: list[BrowserCell], typed: str, query: str, where: str
) -> None:
    page.open(cell=cells[1].name)
    if where == "text":
        page.find("#where option[value=text]").click()
    page.press("/")
    page.press(typed, f"link.get('q') === {json.dumps(typed)}")
    found = matching(cells[1], query, where)
    assert page.listed() == sorted(found, key=lambda feature: (-found[feature], feature))
    assert bool(found) == (query != "nowhere") and len(found) < FEATURES


def test_many_features_scroll_and_filter(
    tmp_path: Path, driver: Any, record_property: Callable[[str, object], None]
) -> None:
    many = 32_768
    folder = write_analysis(tmp_path / "analysis", many, contexts=4)
    page = Page(write_browser(tmp_path / "report", [cell(folder, 2048, many)], {}), driver)
    page.open(cell="tiny/step0002048/layer02/topk-2048")
    page.run("(grid.scrollTop = grid.scrollHeight, null)")
    page.settle(f"rows.lastElementChild.ariaRowIndex === '{many + 1}'")
    assert page.find(f"[aria-rowindex='{many + 1}']").is_displayed()
    assert page.run("rows.childElementCount") < 80
    page.run("(go({class: 'Mixed', mono: '0.2..0.4', sort: '-rate'}), null)")
    expected = features_of(cell(folder, 2048, many)).query("`class` == 'Mixed' and 0.2 <= monosemanticity <= 0.4")
    assert page.listed() == list(expected.sort_values("rate", ascending=False).index)
    clock = "((start) => ({}, performance.now() - start))(performance.now())"
    record_property("filter_and_sort_ms", page.run(clock.format("selected(listed, null)")))
    record_property("draw_ms", page.run(clock.format("draw()")))
