from pathlib import Path

import pandas as pd
import pytest

from bisae.report.effects import effects
from bisae.report.interventions.blocks import BLOCK
from bisae.runtime.errors import Refused

AXES = {"model": "tiny", "recipient": 9, "layers": "2", "mode": "ablate", "donor_model": None, "donor": 9}
AXES |= {"norm": None, "coefficient": None, "sae": "topk-1", "limit": None}


def row(kind: str, control: str | None, seed: int | None, change: float, **axes: object) -> dict[str, object]:
    ends = {"cross_entropy_en_change": change, "cross_entropy_en_change_low": 0, "cross_entropy_en_change_high": 1}
    loss = {"loss_en_ja": 1.0, "loss_en_ja_change": 2 * change, "loss_en_ja_change_low": 0, "loss_en_ja_change_high": 1}
    more = {"cross_entropy_ja_change": change, "cross_entropy_ja_change_low": 0, "cross_entropy_ja_change_high": 1}
    return {**AXES, "kind": kind, "control": control, "seed": seed, **ends, **more, **loss, **axes}


def test_only_single_features_of_a_cell_have_effects_beside_the_mean_of_their_random_draws(tmp_path: Path) -> None:
    rows = [row("none", None, None, 0), row("ids:3,4", None, None, 5), row("en", None, None, 5)]
    rows += [row("ids:3", None, None, 0.5), row("ids:3", "random", 0, 0.25), row("ids:3", "random", 1, 0.75)]
    rows += [row("ids:3", "shuffled", 0, 7.0), row("ids:4", None, None, 0.25, mode="steer", coefficient=2.0)]
    rows += [row("ids:3", None, None, 0.125, sae="topk-2")]
    assert set(BLOCK) <= set(rows[0])
    pd.DataFrame(rows).to_csv(tmp_path / "interventions.csv", index=False)
    found = effects(tmp_path)
    assert set(found) == {"topk-1", "topk-2"}
    three = [one for one in found["topk-1"] if one["feature"] == 3]
    assert [(one["value"], one["random"], one["draws"]) for one in three] == [
        (0.5, 0.5, 2),
        (0.5, 0.5, 2),
        (1.0, 1.0, 2),
    ]
    assert three[0]["edit"] == "tiny, step 9, layer 2, ablate, from step 9" and (three[0]["low"], three[0]["high"]) == (
        0,
        1,
    )
    four = [one for one in found["topk-1"] if one["feature"] == 4]
    assert four[0]["value"] == 0.25 and four[0]["random"] is None and "coefficient 2" in four[0]["edit"]
    assert [one["value"] for one in found["topk-2"]] == [0.125, 0.125, 0.25]


def test_without_results_there_are_no_effects_and_another_table_is_refused(tmp_path: Path) -> None:
    assert effects(None) == effects(tmp_path / "missing") == effects(tmp_path) == {}
    (tmp_path / "interventions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Refused, match="interventions"):
        effects(tmp_path)
