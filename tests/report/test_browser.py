import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bisae.report.browser import BrowserCell, write_browser
from tests.report.browser_fixture import HOSTILE
from tests.report.browser_page import FEATURES, Page, features_of, matching

pytestmark = pytest.mark.slow


def test_the_first_page_lists_the_cells_and_leads_to_their_features(page: Page, cells: list[BrowserCell]) -> None:
    page.open()
    assert page.texts(".cells tbody td:first-child") == ["0", "512", "2,048"]
    assert "shipped" in page.find("#overview").text
    page.find(".cells tbody tr:last-child a").click()
    page.settle("feature() === null && listed !== null")
    assert page.run("link.get('cell')") == cells[-1].name
    assert page.find("#count").text == f"{FEATURES} of {FEATURES} features"
    score = features_of(cells[-1])["alignment"]
    assert (
        page.find("[data-metric=Mixed]").text
        == f"{round(features_of(cells[-1])['class'].eq('Mixed')[2:].mean() * 100)} %"
    )
    assert page.listed() == list(score.sort_values(ascending=False, kind="stable").index)
    assert len(page.texts("#rows [role=row]")) < 80, "only the rows in view are in the page"


@pytest.mark.parametrize("number", [2, 5, 300, FEATURES - 1])
def test_the_page_of_a_feature_shows_what_the_tables_hold(page: Page, cells: list[BrowserCell], number: int) -> None:
    page.open(cell=cells[1].name, feature=number, whole=1)
    row = features_of(cells[1]).loc[number]
    for element in page.driver.find_elements("css selector", "#page [data-name]"):
        name, value = element.get_attribute("data-name"), element.get_attribute("data-value")
        assert float(value) == pytest.approx(float(row[name]), rel=1e-6), name
    names = [element.get_attribute("data-name") for element in page.driver.find_elements("css selector", "#page dd")]
    assert {"rate", "firings", "h_token", "h_semantic", "monosemanticity_null", "alignment", "alignment_p"} <= set(
        names
    )
    assert page.find("#page .class").text == row["class"]

    texts = pd.read_parquet(cells[1].folder / "sequences.parquet").set_index("sequence")
    contexts = pd.read_parquet(cells[1].folder / "contexts.parquet").query(f"feature == {number}")
    items = page.driver.find_elements("css selector", ".contexts li")
    assert len(items) == len(contexts) > 0
    for item, context in zip(items, contexts.itertuples(), strict=True):
        text = texts.loc[context.sequence]
        assert item.find_element("css selector", "p").get_attribute("textContent") == "".join(text["pieces"]).lstrip()
        assert item.find_element("css selector", "p").get_attribute("lang") == text["language"]
        assert float(item.get_attribute("data-activation")) == pytest.approx(context.activation)
        marks = item.find_elements("css selector", "mark")
        values = [int(mark.get_attribute("data-value")) for mark in marks]
        assert values == [value for value in context.values if value > 0]
        assert [mark.text for mark in marks if "peak" in str(mark.get_attribute("class"))] == [
            text["pieces"][context.peak].strip()
        ]

    near = cells[1].neighbours
    assert near is not None and page.texts(".neighbours a") == [str(other) for other in near.feature[number]]
    if number < 300:
        tokens = pd.read_parquet(cells[1].folder / "tokens.parquet").query(f"feature == {number}")
        assert sorted(page.texts(".clusters .token")) == sorted(
            f"{token.strip()}{count}" for token, count in zip(tokens["token"], tokens["count"], strict=True)
        )


def test_text_of_a_corpus_is_never_read_as_a_page(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[0].name, feature=0, whole=1)
    text = page.find(".contexts p").get_attribute("textContent")
    assert text.startswith("".join(HOSTILE).replace("\x7f", "\ufffd"))
    assert page.driver.find_elements("css selector", "#page script") == []


def test_a_dead_feature_says_that_it_has_nothing(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[0].name, feature=1)
    assert page.find(".class").text == "dead" and page.find("[data-name=monosemanticity]").text == "–"
    assert "none" in page.find("section[aria-label=Contexts]").text


def test_the_history_follows_the_best_matches_to_both_sides(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[1].name, feature=7)
    assert page.texts("section[aria-label='Over checkpoints'] td:nth-child(2)") == ["6", "7", "8"]
    page.find("section[aria-label='Over checkpoints'] tr:last-child a").click()
    page.settle("feature() === 8")
    assert page.run("link.get('cell')") == cells[2].name


def test_a_traced_latent_shows_its_lives(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[1].name, feature=7)
    place = "section[aria-label='The same latent over checkpoints']"
    assert page.texts(f"{place} td:nth-child(2)") == ["7", "7", "7"]
    rows = [" ".join(row.split()[-4:]) for row in page.texts(f"{place} tbody tr")]
    assert rows == ["0 0.125 1 0", "0 0 – –", "– – 2 0.250"]
    (note,) = page.texts(f"{place} .note")
    assert "born at step 0, gone at step 512, drift 0; born at step 2,048, to the last step, drift 0.250" in note


def test_what_a_feature_does_stands_beside_what_it_fires_on(page: Page, cells: list[BrowserCell]) -> None:
    page.open(cell=cells[1].name, feature=7)
    rows = page.texts("section[aria-label='What it does'] tbody tr")
    assert rows == ["ablate loss 0.250 0.125 to 0.500 −0.500, −0.750 to 0 (2 draws)", "<b> gain – – to – –"]
    for cell, feature in ((cells[1], 9), (cells[0], 7)):
        page.open(cell=cell.name, feature=feature)
        assert page.texts("section[aria-label='What it does']") == []


def test_a_link_shows_again_what_was_shown(page: Page, cells: list[BrowserCell]) -> None:
    link = {"cell": cells[2].name, "q": "cat", "where": "text", "class": "Mixed", "mono": "..0.9", "sort": "alignment"}
    page.open(**link)
    feature = page.listed()[3]
    page.run(f"openFeature({feature})")
    page.settle(f"feature() === {feature}")
    address, listed = page.driver.current_url, page.listed()
    page.driver.get("about:blank")
    page.driver.get(address)
    page.settle()
    assert page.listed() == listed and page.find("h1").text == f"Feature {feature}"
    assert page.find("#query").get_attribute("value") == "cat"
    assert page.find("input[value=Mixed]").is_selected() and page.find("#where").get_attribute("value") == "text"
    page.find("select[name=step] option[value='0']").click()
    page.settle(f"link.get('cell') === {json.dumps(cells[0].name)}")
    assert page.run("link.get('q')") == "cat" and set(page.listed()) <= set(matching(cells[0], "cat", "text"))
    page.driver.back()
    page.settle(f"feature() === {feature}")
    assert page.listed() == listed


def test_the_keyboard_is_enough(page: Page, cells: list[BrowserCell]) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(cell=cells[0].name)
    order = page.listed()
    page.press("jj" + Keys.ARROW_DOWN + "k" + Keys.ENTER, f"feature() === {order[2]}")
    page.press("j", f"feature() === {order[3]}")
    page.press("k" + Keys.ARROW_UP, f"feature() === {order[1]}")
    assert page.find("#grid").get_attribute("aria-activedescendant") == f"feature-{order[1]}"
    page.press(Keys.ESCAPE, "feature() === null")
    page.press("?", "by('about').open")
    page.press(Keys.ESCAPE, "!by('about').open")
    page.press("/", "document.activeElement.id === 'query'")
    page.press("jazz", "link.get('q') === 'jazz'")
    page.press(Keys.ESCAPE, "document.activeElement.id !== 'query'")
    page.press(Keys.ESCAPE, "!link.has('cell')")


@pytest.fixture
def phone(driver: Any) -> Iterator[None]:
    metrics = {"width": 360, "height": 720, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    yield
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.usefixtures("phone")
def test_a_phone_shows_one_thing_at_a_time_without_scrolling_sideways(page: Page, cells: list[BrowserCell]) -> None:
    fits = "document.scrollingElement.scrollWidth <= 360 && by('page').scrollWidth <= by('page').clientWidth"
    page.open()
    assert page.run(fits)
    page.open(cell=cells[1].name)
    assert page.run(fits) and not page.find("#page").is_displayed()
    page.find("#filters summary").click()
    assert page.run(fits) and page.find("input[name=rate]").is_displayed()
    page.find("#rows [role=row]").click()
    page.settle("feature() !== null")
    assert page.run(fits) and not page.find("#grid").is_displayed()
    page.find(".back").click()
    page.settle("feature() === null")
    assert page.find("#grid").is_displayed()


def test_a_missing_data_file_and_an_unknown_cell_are_named(
    cells: list[BrowserCell], tmp_path: Path, driver: Any
) -> None:
    index = write_browser(tmp_path, cells[:1], {})
    for chunk in (tmp_path / "browser" / "data").glob("*/features"):
        shutil.rmtree(chunk)
    driver.get("about:blank")
    driver.get(f"{index.as_uri()}#cell={cells[0].name}&feature=3")
    page = Page(index, driver)
    notice = page.find("#notice")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 20).until(lambda _: "features/0.js" in notice.text)
    page.open(cell="other")
    assert "no cell other" in page.find("#notice").text
