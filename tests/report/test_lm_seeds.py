"""Claims about LMs: means over seeds of an LM and of its control, by layer, at the last checkpoint."""

import numpy as np
import pytest
from scipy import stats

from bisae.metrics.intervals import difference_interval, t_interval
from bisae.report.lm_seeds import over_lm_seeds
from tests.report.sweep import BINS, sweep

CELLS = sweep(("main", "main_seed1", "control"), (0, 2048), (0, 1)).cells
SEEDS = ["main", "main_seed1"]


def test_the_unit_is_the_lm_seed_and_sae_seeds_are_averaged() -> None:
    found = over_lm_seeds(BINS.label(CELLS))
    assert found is not None
    row = found[0].set_index(["layer", "metric"]).loc[(2, "aligned")]
    last = CELLS.query("step == 2048 and layer == 2").groupby("model")["aligned"].mean()
    mine = last[SEEDS].to_numpy()
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((mine.mean(), *t_interval(mine)))
    assert (row["seeds"], row["control"], row["control_seeds"]) == (2, "control", 1)
    assert row["control_mean"] == pytest.approx(last["control"])
    assert row["difference"] == pytest.approx(mine.mean() - last["control"])
    assert np.isnan([row[name] for name in ("control_low", "difference_low", "difference_high")]).all()
    header, *rows = found[1].header, *found[1].rows
    assert header == ["layer", "claim", "LM", "control", "LM − control"]
    shown = {(cells[0][0].text, cells[1][0].text): [cell[0].text for cell in cells[2:]] for cells in rows}[
        ("2", "aligned")
    ]
    assert shown[0].endswith("; 2") and shown[1].endswith("(–); 1") and shown[2].endswith("(–)")


def test_a_family_makes_models_seeds_of_one_lm_and_one_seed_makes_no_table() -> None:
    family = CELLS["model"].map({"main": "main", "main_seed1": "control", "control": "control"})
    control = BINS.label(CELLS.assign(family=family))  # report.bins.lm_seeds, which names the main LM's, goes before
    assert set(control["lm"]) == {"main", "control"}
    same = CELLS["model"].map({"main": "a", "main_seed1": "b", "control": "control"})
    alone = CELLS[CELLS["model"] != "main_seed1"].assign(family=same)
    assert over_lm_seeds(BINS.label(alone)) is None


def test_the_interval_of_a_difference_is_welchs() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(2, 1, 5), random.normal(0, 3, 4)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert difference_interval(one, other) == pytest.approx((expected.low, expected.high))
    assert np.isnan(difference_interval(one, other[:1])).all()
    assert difference_interval(np.ones(3), np.zeros(2)) == (1, 1)
