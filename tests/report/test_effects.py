from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy import stats

from bisae.report.effects import effects
from bisae.report.interventions.blocks import BLOCK, blocks, metrics_of, settled
from bisae.report.interventions.swap import swap_shares
from bisae.runtime.errors import Refused
from tests.conftest import ROOT
from tests.report.interventions.fixture import samples_of
from tests.report.interventions.test_swap import DRAWS, LANGUAGES, joined, made

AXES = {"model": "tiny", "recipient": 9, "layers": "2", "mode": "ablate", "donor_model": None, "donor": 9}
AXES |= {"norm": None, "coefficient": None, "sae": "topk-1", "limit": None}
AXES |= {"features": 1, "change": 0.1, "drawn_from": "others", "widening": 1.0}


def row(kind: str, control: str | None, seed: int | None, change: float, **axes: object) -> dict[str, object]:
    values = {"cross_entropy_en": 3.0, "cross_entropy_ja": 3.0, "loss_en_ja": 1.0}
    ends = {"cross_entropy_en_change": change, "cross_entropy_en_change_low": 0.0, "cross_entropy_en_change_high": 1.0}
    loss = {"loss_en_ja_change": 2 * change, "loss_en_ja_change_low": 0.0, "loss_en_ja_change_high": 1.0}
    more = {"cross_entropy_ja_change": change, "cross_entropy_ja_change_low": 0.0, "cross_entropy_ja_change_high": 1.0}
    row = {**AXES, "kind": kind, "control": control, "seed": seed, **values, **ends, **more, **loss, **axes}
    return {**row, "hash": str(row)}


def test_only_single_features_of_a_cell_have_effects_beside_the_mean_of_their_random_draws(tmp_path: Path) -> None:
    rows = [row("none", None, None, 0), row("ids:3,4", None, None, 5), row("en", None, None, 5)]
    rows += [row("ids:3", None, None, 0.5), row("ids:3", "random", 0, 0.25), row("ids:3", "random", 1, 0.75)]
    rows += [row("ids:3", "shuffled", 0, 7.0), row("ids:4", None, None, 0.25, mode="steer", coefficient=2.0)]
    rows += [row("ids:3", None, None, 0.125, sae="topk-2")]
    assert set(BLOCK) <= set(rows[0])
    pd.DataFrame(rows).to_csv(tmp_path / "interventions.csv", index=False)
    found = effects([tmp_path, tmp_path])  # those of a folder once
    assert set(found) == {"topk-1", "topk-2"}
    three = [one for one in found["topk-1"] if one["feature"] == 3]
    assert [(one["value"], one["random"], one["draws"]) for one in three] == [
        (0.5, 0.5, 2),
        (0.5, 0.5, 2),
        (1.0, 1.0, 2),
    ]
    for one, spread in zip(three, (0.25, 0.25, 0.5), strict=True):
        reached = stats.t.ppf(0.975, 1) * spread * 2**0.5 * 1.5**0.5  # two draws, s = spread * sqrt(2)
        assert (one["random_low"], one["random_high"]) == pytest.approx(
            (one["random"] - reached, one["random"] + reached)
        )
    assert three[0]["edit"] == "tiny, step 9, layer 2, ablate, from step 9" and (three[0]["low"], three[0]["high"]) == (
        0,
        1,
    )
    four = [one for one in found["topk-1"] if one["feature"] == 4]
    assert four[0]["value"] == 0.25 and four[0]["random"] is None and "coefficient 2" in four[0]["edit"]
    assert [one["value"] for one in found["topk-2"]] == [0.125, 0.125, 0.25]


def test_without_results_there_are_no_effects_and_another_table_is_refused(tmp_path: Path) -> None:
    assert effects([]) == effects([tmp_path / "missing"]) == effects([tmp_path]) == {}
    (tmp_path / "interventions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Refused, match="interventions"):
        effects([tmp_path])


def test_the_report_reads_where_swaps_and_languages_are_written() -> None:
    read = yaml.safe_load((ROOT / "conf/report/default.yaml").read_text("utf-8"))["interventions"]
    files = ("intervene", "experiment/swap", "experiment/languages")
    assert {yaml.safe_load((ROOT / f"conf/{name}.yaml").read_text("utf-8"))["output"] for name in files} == set(read)


def test_a_swapped_feature_has_its_share_of_the_whole_streams_effect_or_no_claim(tmp_path: Path) -> None:
    tables = []
    for stream, step in ((2.0, 512), (0.05, 128)):
        table = made(1.0, stream, step=step)
        tables.append(table.assign(kind=table["kind"].replace("aligned", "ids:7")))
    both = joined(*tables).assign(sae=lambda table: table["sae"].mask(table["kind"] == "none", ""))
    metrics = metrics_of(both, LANGUAGES)
    (tmp_path / "tables").mkdir()
    both.to_csv(tmp_path / "interventions.csv", index=False)
    shares, _ = swap_shares(blocks(settled(both), metrics, LANGUAGES), metrics, samples_of(both))
    shares.to_csv(tmp_path / "tables/swap.csv", index=False)
    (found,) = effects([tmp_path]).values()
    assert {one["feature"] for one in found} == {7}
    early, late = ([one for one in found if f"step {step}," in one["edit"]] for step in (128, 512))
    assert [one["value"] for one in late] == [1.0, 0.5] and late[1]["metric"].endswith("effect, En→Ja (higher)")
    assert late[1]["low"] < 0.5 < late[1]["high"] and late[1]["random"] == pytest.approx(DRAWS.mean() / 2)
    assert [one["value"] for one in early] == [1.0, None] and "no claim" in early[1]["metric"]
