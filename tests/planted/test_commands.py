"""A planted world through the commands, as any other LM and text."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

from bisae.cli.analyze import analyze
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from bisae.planted.truth import TRUTH, Truth
from bisae.runtime.errors import AnalysisFailed, ConfigError

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
RULES = ["space=planted", "language=token", "alignment.pairs=corpus"]


def test_planted_cells_are_trained_analysed_and_followed_and_what_needs_predictions_is_refused(
    config: Config, tmp_path: Path
) -> None:
    for step in (0, 1024):
        train(config("model=planted", "corpus=planted", "corpus.pairs=200", f"checkpoint={step}", "layer=[1,3]"))
    table = analyze(config(*RULES, name="analyze"))
    assert table[["model", "step", "layer"]].to_numpy().tolist() == [
        ["planted", n, m] for n in (0, 1024) for m in (1, 3)
    ]
    assert table["aligned"].notna().all() and (tmp_path / "report/index.html").is_file()
    truth = Truth.load(next(tmp_path.glob(f"cache/lm/planted-*/{TRUTH}")))
    contexts = pd.read_parquet(
        next((tmp_path / "runs/planted/step0001024/layer03").glob("*/analysis/*/tokens.parquet"))
    )
    assert len(contexts) and truth.there(1024, 3).sum() > truth.there(0, 3).sum()
    cell = next((tmp_path / "runs/planted").glob("*/*/*/cell.json"))
    assert "planted" in json.loads(cell.read_text())["identity"]["activations"]["weights"]
    with pytest.raises(ConfigError, match="model=planted: is planted: it has activations, but predicts no tokens"):
        intervene(config("recipient=0", "layer=1", name="intervene"))
    with pytest.raises(AnalysisFailed, match="predicts no tokens"):
        analyze(config(*RULES, "recovered=3", "output=null", name="analyze"))
