"""Retrieval of made-up cells: one LM with two seeds, its control, two layers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bisae.metrics.intervals import t_interval
from bisae.report.retrieval import retrieved, write_retrieval
from tests.report.sweep import BINS, sweep

CELLS = BINS.label(
    sweep(("main", "main_seed1", "control"), (0, 1024, 2048), (0, 1)).cells.query("layer in (1, 3)")
).assign(retrieval_stream=0.1)
LAYERS = range(5)


def value(model: str, step: int, layer: int, space: str) -> float:
    return (0.1 + 0.01 * layer + 0.03 * (model == "main_seed1") + 0.1 * (space == "codes")) * step / 2048


def read(folder: str, name: str) -> pd.DataFrame:
    assert name == "retrieval"
    model, step, layer, _ = folder.split("/")
    rows = [(number, "stream") for number in LAYERS] + [(int(layer), "codes")]
    found = [
        {"layer": at, "space": space, "centred": centred, "direction": direction}
        | {"pairs": 400, "candidates": 100, "chance": 0.01, "shuffled": 0.011}
        | {"value": (mean := value(model, int(step), at, space) * (0.5 + centred / 2)), "low": mean - 0.02}
        | {"high": mean + 0.03}
        for at, space in rows
        for centred in (True, False)
        for direction in ("en-ja", "ja-en", "both")
    ]
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    written = write_retrieval(CELLS, read, folder)
    assert sorted(written) == sorted(path for path in folder.rglob("*.*") if path.is_file())
    return folder


def test_every_checkpoints_streams_and_every_cells_codes_are_a_row_once(folder: Path) -> None:
    table = pd.read_csv(folder / "retrieval.csv")
    counted = table.groupby(["model", "step", "space", "centred", "direction"]).size().unstack("space")
    assert (counted["stream"] == 5).all() and (counted["codes"] == 4).all()  # layers; layers and SAE seeds
    streams = table[table["space"] == "stream"]
    assert streams[["setting", "SAE", "seed"]].isna().all(axis=None)
    assert table[table["space"] == "codes"]["seed"].isin([0, 1]).all()


def test_the_table_has_the_mean_of_the_lm_seeds_with_their_t_interval_and_the_pairs_of_one(folder: Path) -> None:
    lines = (folder / "tables/retrieval.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert [row[:2] for row in rows[2:]] == [
        [lm.replace(")", ")"), space] for lm in ("main", "control (control)") for space in ("stream", "codes")
    ]
    seeds = np.array([value(model, 2048, 3, "stream") for model in ("main", "main_seed1")])
    low, high = t_interval(seeds)
    assert rows[2][rows[0].index("layer 3")] == f"{seeds.mean():.3f} ({low:.3f}, {high:.3f})"
    alone = value("control", 2048, 3, "codes")
    assert rows[5][rows[0].index("layer 3")] == f"{alone:.3f} ({alone - 0.02:.3f}, {alone + 0.03:.3f})"
    assert rows[5][rows[0].index("layer 2")] == ""


def test_the_figure_has_the_last_step_of_each_phase_beside_the_control(folder: Path) -> None:
    drawn = pd.read_csv(folder / "figures/retrieval_main.csv")
    assert list(drawn["panel"].unique()) == ["step 0", "step 1024", "step 2048"]
    assert not (folder / "figures/retrieval_control.csv").exists()
    control = drawn.query("dashed and line == 'stream' and step == 1024").set_index("x")["value"]
    assert control.to_dict() == pytest.approx({layer: value("control", 1024, layer, "stream") for layer in LAYERS})
    assert drawn.query("dashed")["null"].isna().all() and (drawn.query("not dashed")["null"] == 0.011).all()
    assert (drawn.query("not dashed")["lm_seeds"] == 2).all()


def test_cells_without_sentence_pairs_have_no_retrieval(tmp_path: Path) -> None:
    without = CELLS.assign(retrieval_stream=np.nan)
    assert write_retrieval(without, read, tmp_path) == [] and retrieved(without, read).empty
    assert not list(tmp_path.iterdir())
