"""The command: cells scored on any text and checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig

from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.evaluate import evaluate
from bisae.cli.train import train
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import ConfigError
from bisae.sae import load
from tests.conftest import run

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]


def test_a_cell_on_its_own_text_has_its_validation_metrics_again(config: Config, tmp_path: Path) -> None:
    cells = {f"{cell.sae}-{cell.hash}": cell for cell in train(config("layer=[1,2]", "sae.k=[2,4]"))}
    table = evaluate(config(name="evaluate"))
    assert len(table) == 4 and table["same_lm"].all() and (table["tokens"] == 1000).all()
    for _, row in table.iterrows():
        for name, value in cells[row["sae"]].read()["metrics"].items():
            assert row[name.removeprefix("val/")] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    written = pd.read_csv(tmp_path / "scores.csv")
    pd.testing.assert_frame_equal(written, table, check_dtype=False)


def test_another_checkpoint_and_text_are_scored_as_the_definition_says(config: Config, tmp_path: Path) -> None:
    (cell,) = train(config("layer=2"))
    output = f"output={tmp_path}/scores.json"
    (row,) = evaluate(config("checkpoint=final", "split=analysis", "tokens=700", output, name="evaluate")).to_dict(
        "records"
    )
    assert (row["step"], row["on_step"], row["same_lm"], row["tokens"]) == (512, 2048, False, 700)

    recipe = Recipe.of(find_cells(str(cell.folder), tmp_path)[0], None, None, tmp_path / "cache")
    source: LMPass = recipe.lm_pass("analysis", "cpu", recipe.other_checkpoint("final"))
    x = torch.nn.functional.normalize(source.activations(0, [2])[2][:700].double())
    with torch.no_grad():
        x_hat = load(cell.folder).double().reconstruct(x).x_hat
    fvu = ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()
    assert row["fvu"] == pytest.approx(fvu, rel=1e-3)
    assert json.loads((tmp_path / "scores.json").read_text())[0]["fvu"] == pytest.approx(row["fvu"], rel=1e-12)


REFUSED = (
    ("model=embedded_d64 checkpoint=final", "model"),  # narrower than the SAE
    ("model=embedded_d64", "model"),  # not the cell's own LM, and no checkpoint is named
    ("checkpoint=7", "checkpoint"),
    ("model=embedded model.hook=mlp checkpoint=512", "model.hook"),
    ("tokens=100000000", "tokens"),
    ("split=nowhere", "split"),
    ("only.layer=4", "only.layer"),
    ("output=scores.txt", "output"),
    ("cell=nowhere", "cell"),
)


def test_what_cannot_be_scored_is_refused_by_key(config: Config) -> None:
    train(config())
    for overrides, key in REFUSED:
        with pytest.raises(ConfigError) as refused:
            evaluate(config(*overrides.split(), name="evaluate"))
        assert refused.value.key == key, refused.value


def test_the_command_line_prints_and_writes_a_row_for_each_cell(config: Config, tmp_path: Path) -> None:
    train(config())
    done = run(["-m", "bisae", "evaluate", f"cell={tmp_path}/runs", f"cache={tmp_path}/cache"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fvu" in done.stdout and len(pd.read_csv(tmp_path / "scores.csv")) == 1
    refused = run(["-m", "bisae", "evaluate", "cell=nowhere"], tmp_path)
    assert refused.returncode == 1 and "error: cell=nowhere" in refused.stderr
