"""The rules on the true codes of a world, by the commands."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig
from scipy.stats import hypergeom

from bisae.analysis import precision_recall
from bisae.cli.analyze import analyze
from bisae.cli.train import train
from tests.planted.worlds import SMALL, model

pytestmark = pytest.mark.slow

STEPS = (0, 256, 1024)
EASY = {
    **SMALL,
    "d_model": 64,
    "correlated": 0,
    "noise": 0,
    "presence": 1,
    "second": [1, 1],
    "spread": 0.2,
    "deaths": 0,
}
LEXICON = {"meanings": 24, "forms": 2, "function_words": 6}
TEXT = {"splits": "{sae:60,validation:10,analysis:400}", "pairs": 400, "topics": 1, "zipf": 0, "loans": 0}
WORLD = [
    *("model=planted", "corpus=planted", "model.hook=codes", "sae=oracle", "layer=4", "logger=none"),
    *("data.tokens=2048", "data.validation_tokens=500", "data.epochs=1", "trainer.accelerator=cpu"),
    *(f"model.{key}={value}".replace(" ", "") for key, value in EASY.items()),
    *(f"corpus.{key}={value}" for key, value in TEXT.items()),
    *(f"corpus.lexicon.{key}={value}" for key, value in LEXICON.items()),
]


def test_every_label_is_right_in_an_easy_world_and_at_chance_on_another_truth(
    config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = model(tmp_path, **EASY, lexicon={"languages": ["en", "ja"], "seed": 0, **LEXICON}).features
    for step in STEPS:
        train(config(*WORLD, f"sae.latents={features}", f"checkpoint={step}", tiny=False))
    rules = ["space=planted", "language=token", "alignment.pairs=corpus", "tokens=20000", "alignment.permutations=1000"]

    def scores() -> pd.DataFrame:
        analyze(config(*rules, "monosemanticity.shuffles=50", name="analyze"))
        found = pd.read_csv(tmp_path / "report/precision_recall.csv")
        return found[found["step"] == STEPS[-1]].set_index("label")

    right = scores()
    labels = ("English", "Japanese", "Mixed", "bilingual", "aligned", "contextual", "single_token", "appears")
    assert set(right.index) == set(labels) and set(right["level"]) == {"oracle"}
    assert (right["true"] > 0).all() and (right["f1_null"].drop("appears") < 0.7).all()
    assert (right[["precision", "recall", "f1"]] == 1).all(axis=None), right
    for file in ("planted.csv", "tables/precision_recall.md", "figures/precision_recall.png"):
        assert (tmp_path / "report" / file).stat().st_size > 100

    true = precision_recall.planted_labels
    order = np.random.default_rng(0).permutation(features)
    monkeypatch.setattr(
        precision_recall, "planted_labels", lambda truth: {name: found[order] for name, found in true(truth).items()}
    )
    wrong = scores().drop("appears")
    assert (wrong["f1"] < 1).all()
    for row in wrong.itertuples():
        low, high = hypergeom(row.items, row.true, row.found).interval(0.999)
        assert low <= row.right <= high, row
