import numpy as np
import pandas as pd
import pytest

from bisae.report.markup import markdown
from bisae.report.trust import claims
from tests.report.sweep import BINS, sweep

SWEEP = sweep(("main", "main_seed1", "control"), (0, 2048))


def labelled(**values: float) -> pd.DataFrame:
    """The sweep with a baseline and SAE seeds; `values`: of the metric Mixed, by what it is of."""
    cells = SWEEP.cells
    frozen = cells.query("model == 'main' and step == 2048").assign(baseline="frozen_decoder", pw_mcc=0.2)
    cells = pd.concat([cells.assign(pw_mcc=0.5, pw_mcc_null=0.2), frozen], ignore_index=True)
    cells = cells.assign(Mixed_null=values.pop("shuffled", 0.9), Mixed_reseed=values.pop("reseed", np.nan))
    stable = values.pop("stable", np.nan)
    cells = cells.assign(Mixed_stable=stable, Mixed_stable_low=stable - 0.01, Mixed_stable_high=stable + 0.01)
    where = {
        "random": "step == 0",
        "control": "control and step > 0",
        "frozen": "baseline != 'trained'",
        "trained": "not control and step > 0 and baseline == 'trained'",
    }
    for name, value in values.items():
        rows = cells.query(where[name]).index
        cells.loc[rows, ["Mixed", "Mixed_low", "Mixed_high"]] = [value, value - 0.02, value + 0.02]
    return BINS.label(cells)


def row(**values: float) -> pd.Series:
    found = claims(labelled(**values))
    assert found is not None
    return found[0].query("claim == 'Mixed' and layer == 2").iloc[0]


def test_a_claim_stands_beside_baselines_random_weights_the_control_and_shuffled_labels() -> None:
    one = row(trained=0.5, frozen=0.49, random=0.3, control=0.45, shuffled=0.5, stable=0.6)
    found = one[["trained", "frozen decoder", "random weights", "control LM", "shuffled", "stable features"]]
    assert found.tolist() == pytest.approx([0.5, 0.49, 0.3, 0.45, 0.5, 0.6])
    assert one["trained ±"] == pytest.approx(0.02 / 2)  # four cells: two LM seeds, two SAE seeds
    assert one["differs from"] == "random weights, control LM"
    assert one["not from"] == "frozen decoder, shuffled"


def test_noise_over_seeds_widens_what_counts_as_equal_and_stable_features_must_differ_to_the_same_side() -> None:
    settings = {"trained": 0.5, "frozen": 0.4, "random": 0.3, "control": 0.1, "shuffled": 0.9}
    assert row(**settings)["not from"] == ""
    noisy = row(**settings, reseed=0.05, stable=0.2)
    assert noisy["trained ±"] == pytest.approx(np.hypot(0.01, 1.96 * 0.05))
    assert noisy["differs from"] == "random weights, control LM, shuffled" and noisy["not from"] == "frozen decoder"
    assert noisy["stable alone differ from"] == "control LM, shuffled"


def test_the_printed_table_has_a_row_for_each_claim_and_facts_without_a_verdict() -> None:
    found = claims(labelled(trained=0.5, stable=0.4))
    assert found is not None
    lines = [line.split(" | ") for line in markdown(found[1]).splitlines() if line.startswith("| ")]
    assert lines[0][:4] == ["| layer", "claim", "trained", "frozen decoder"]
    (mcc,) = [line for line in lines if line[:2] == ["| 2", "pw&#95;mcc"]]
    assert mcc[2:4] == ["0.500", "0.200"] and mcc[-1].startswith("–") and mcc[-2] == "–"
    assert [line[1] for line in lines if line[0] == "| 2"][:3] == ["English", "Japanese", "Mixed"]


def test_without_baselines_and_seeds_there_is_no_such_table() -> None:
    assert claims(BINS.label(SWEEP.cells)) is None
