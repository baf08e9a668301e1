"""A report in a real browser, and the cells it shows."""

from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from bisae.report.browser import BrowserCell, Neighbours
from bisae.report.browser_chunks import pack
from tests.report.browser_fixture import lineage

STEPS = (0, 512, 2048)
FEATURES = 600
EFFECTS = (
    {
        "feature": 7,
        "edit": "ablate",
        "metric": "loss",
        "value": 0.25,
        "low": 0.125,
        "high": 0.5,
        "random": -0.5,
        "random_low": -0.75,
        "random_high": 0.0,
        "draws": 2,
    },
    {
        "feature": 7,
        "edit": "<b>",
        "metric": "gain",
        "value": None,
        "low": None,
        "high": None,
        "random": None,
        "random_low": None,
        "random_high": None,
        "draws": 0,
    },
    {
        "feature": 8,
        "edit": "steer",
        "metric": "loss",
        "value": 1.0,
        "low": 0.5,
        "high": 2.0,
        "random": None,
        "random_low": None,
        "random_high": None,
        "draws": 0,
    },
)
READY = "return document.body.dataset.shown === String(link) && (searched === null || searched.seen === 1)"


def cell(folder: Path, step: int, features: int) -> BrowserCell:
    random = np.random.default_rng(step)
    cosine = -np.sort(-random.uniform(0, 1, (features, 4)), axis=1)
    following = STEPS[STEPS.index(step) + 1 :]
    return BrowserCell(
        f"tiny/step{step:07d}/layer02/topk-{step}",
        {"model": "tiny", "step": step, "layer": 2, "sae": "topk", "seed": 0},
        folder,
        Neighbours(random.integers(features, size=(features, 4)), cosine),
        lineage(features, step, following[0], STEPS[-1], seed=step) if following else None,
        EFFECTS if step == STEPS[1] else (),
        traced(features),
    )


def traced(features: int) -> dict[str, Any]:
    """Every latent lives at the first step, is silent at the second, and lives again, turned by 0.25."""
    columns: dict[str, list[float]] = {
        "life": [1, 0, 2],
        "same": [0.0, 0.0, np.nan],
        "chance": [0.125, 0.0, np.nan],
        "drift": [0, np.nan, 0.25],
    }
    names = [f"tiny/step{step:07d}/layer02/topk-{step}" for step in STEPS]
    packed = {name: pack(np.repeat(values, features), "f4") for name, values in columns.items()}
    return {"cells": names, "latents": features, **packed}


def features_of(cell: BrowserCell) -> pd.DataFrame:
    return pd.read_parquet(cell.folder / "features.parquet")


def matching(cell: BrowserCell, query: str, where: str) -> dict[int, int]:
    """How many contexts of each feature match, by the tables."""
    texts = pd.read_parquet(cell.folder / "sequences.parquet").set_index("sequence")["pieces"]
    found: dict[int, int] = {}
    for context in pd.read_parquet(cell.folder / "contexts.parquet").itertuples():
        pieces = [normalize("NFKC", piece).lower() for piece in texts[context.sequence]]
        start = sum(len(piece) for piece in pieces[: context.peak])
        end, text = start + len(pieces[context.peak]), "".join(pieces)
        places = [at for at in range(len(text)) if text.startswith(query, at)]
        if where == "peak":
            places = [at for at in places if at < end and at + len(query) > start]
        if places:
            found[int(context.feature)] = found.get(int(context.feature), 0) + 1
    return found


class Page:
    """A report in Chromium, opened from disk."""

    def __init__(self, index: Path, driver: Any) -> None:
        self.address, self.driver = index.as_uri(), driver

    def open(self, **link: object) -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address + "#" + urlencode(link))
        self.settle()

    def settle(self, until: str = "true") -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20, 0.02).until(lambda driver: driver.execute_script(f"{READY} && ({until})"))

    def run(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.driver.find_elements("css selector", selector)]

    def press(self, keys: str, until: str = "true") -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()
        self.settle(until)

    def listed(self) -> list[int]:
        return list(self.run("Array.from(order)"))
