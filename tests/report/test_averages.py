import numpy as np
import pandas as pd
import pytest

from bisae.metrics.intervals import t_interval
from bisae.report.averages import averages, check_kinds, metrics_of
from bisae.runtime.errors import Refused
from tests.report.sweep import BINS, sweep

MIXED = ["Mixed"]


def test_metrics_are_the_numbers_that_neither_place_a_cell_nor_bound_another_number() -> None:
    names = metrics_of(sweep(("main",), (2048,)).cells)
    assert {"fvu", "Mixed", "monosemanticity", "alive", "aligned"} < set(names)
    assert not {"step", "parameters", "tokens", "Mixed_low", "Mixed_doc_low", "Mixed_null", "folder"} & set(names)


def test_a_mean_over_cells_has_the_interval_of_independent_features_and_of_the_same_documents() -> None:
    cells = BINS.label(sweep(("main",), (2048,), (0,)).cells)
    row = averages(cells, ["step"], MIXED).iloc[0]
    assert row["cells"] == 4
    assert row["value"] == pytest.approx(np.mean(cells["Mixed"]))
    assert row["null"] == pytest.approx(0.9)
    halves = cells["Mixed"] - cells["Mixed_low"]
    assert row["value"] - row["features_low"] == pytest.approx(np.sqrt(np.sum(halves**2)) / 4)
    assert row["features_high"] - row["value"] == pytest.approx(np.sqrt(np.sum(halves**2)) / 4)
    assert row["documents_low"] == pytest.approx(np.mean(cells["Mixed_doc_low"]))
    assert np.isnan(row["sae_seeds_low"]) and np.isnan(row["lm_seeds_low"])


def test_the_interval_of_one_cell_is_its_own() -> None:
    cells = BINS.label(sweep(("main",), (2048,), (0,)).cells)
    rows = averages(cells, ["layer"], MIXED)
    assert rows["features_low"].tolist() == pytest.approx(cells["Mixed_low"].tolist())
    assert rows["features_high"].tolist() == pytest.approx(cells["Mixed_high"].tolist())


def test_seeds_are_compared_by_the_mean_of_all_their_cells() -> None:
    cells = BINS.label(sweep(("main",), (2048,)).cells)
    row = averages(cells, ["step"], MIXED).iloc[0]
    of_seed = cells.groupby("seed")["Mixed"].mean().to_numpy()
    assert (row["sae_seeds_low"], row["sae_seeds_high"]) == pytest.approx(t_interval(of_seed))


def test_a_seed_that_lacks_a_cell_gives_no_interval_over_seeds() -> None:
    cells = BINS.label(sweep(("main",), (2048,)).cells).iloc[:-1]
    row = averages(cells, ["step"], MIXED).iloc[0]
    assert row["cells"] == 7
    assert np.isnan(row["sae_seeds_low"])


def test_lm_seeds_are_models_that_config_calls_seeds_of_one_lm() -> None:
    cells = BINS.label(sweep(("main", "main_seed1"), (2048,)).cells)
    row = averages(cells, ["lm"], MIXED).iloc[0]
    of_lm = cells.groupby("model")["Mixed"].mean().to_numpy()
    assert (row["lm_seeds_low"], row["lm_seeds_high"]) == pytest.approx(t_interval(of_lm))
    others = BINS.label(sweep(("main", "large"), (2048,)).cells)
    assert np.isnan(averages(others, ["step"], MIXED).iloc[0]["lm_seeds_low"])


def test_cells_without_a_metric_are_left_out_of_its_mean() -> None:
    cells = BINS.label(sweep(("main",), (2048,), (0,)).cells)
    cells = pd.concat([cells.iloc[:2], cells.iloc[2:].assign(Mixed=np.nan)])
    row = averages(cells, ["step"], MIXED).iloc[0]
    assert row["cells"] == 2
    assert row["value"] == pytest.approx(cells["Mixed"].iloc[:2].mean())


def test_an_unknown_kind_of_interval_is_refused() -> None:
    check_kinds("intervals", ["features", "lm_seeds"])
    with pytest.raises(Refused, match="^intervals=tokens: must be one of features, documents"):
        check_kinds("intervals", ["features", "tokens"])
