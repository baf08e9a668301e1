import numpy as np
import pandas as pd
import pytest

from bisae.features.measures.language import agreement
from bisae.report.languages import agreements, labels
from bisae.report.markup import markdown
from tests.report.sweep import BINS, sweep

SWEEP = sweep(("main",), (0, 2048))


def test_every_pair_of_definitions_of_every_cell_has_a_row_and_the_last_step_is_printed() -> None:
    labelled = BINS.label(SWEEP.cells)
    tidy, table = agreements(labelled, SWEEP.read)
    names = ["document", "firings", "monolinguality", "SAE-LAPE", "SAE-LAPE, filtered"]  # of this text no script
    pairs = len(names) * (len(names) + 1) // 2
    assert len(tidy) == pairs * len(labelled) and (tidy.query("definition == other")["same"] == 1).all()
    cell = labelled.query("step == 2048").iloc[0]
    found = labels(SWEEP.read(cell["folder"], "features"))
    (row,) = (
        tidy.query("step == 2048 and layer == @cell.layer and seed == @cell.seed")
        .query("definition == 'document' and other == 'firings'")
        .to_dict("records")
    )
    assert (row["same"], row["kappa"]) == pytest.approx(agreement(found["document"], found["firings"]))
    assert row["Mixed"] == pytest.approx(np.mean(found["document"] == "Mixed"))
    assert row["features"] == len(found["document"]) == cell["alive"]
    lines = [line.strip("| ").split(" | ") for line in markdown(table).splitlines() if line.startswith("|")]
    assert lines[0] == ["layer", "seed", "definition", "English", "Japanese", "Mixed", *names[1:]]
    assert len(lines) == 2 + len(names) * (labelled["step"] == 2048).sum()
    assert f"{row['same']:.3f} ({row['kappa']:.2f})" in lines[2]


def test_a_feature_that_the_filters_of_lape_leave_out_is_mixed() -> None:
    kinds = ["English", "English", "Japanese", "dead"]
    features = pd.DataFrame({"class": kinds, "class_lape": kinds, "lape_kept": [True, False, True, False]})
    assert labels(features)["SAE-LAPE, filtered"].tolist() == ["English", "Mixed", "Japanese"]


def test_where_no_feature_is_alive_there_are_no_shares_and_no_agreement() -> None:
    def dead(folder: str, name: str) -> pd.DataFrame:
        found = SWEEP.read(folder, name)
        return found.assign(**{"class": "dead"}) if "/2048/" in folder else found

    tidy, table = agreements(BINS.label(SWEEP.cells), dead)
    last = tidy.query("step == 2048")
    assert last[["same", "kappa", "English", "Mixed"]].isna().all().all() and tidy.query("step == 0")["same"].all()
    assert "nan" not in markdown(table)
