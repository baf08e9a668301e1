"""Concept swaps: shares of the whole stream's effect, given only where that effect is there."""

import numpy as np
import pandas as pd
import pytest

from bisae.report.interventions.blocks import blocks, metrics_of, settled
from bisae.report.interventions.swap import swap_pictures, swap_shares
from bisae.report.markup import Table
from tests.report.interventions.fixture import axes, frame, metric, samples_of

LANGUAGES, CONTRAST = ["en", "ja"], "contrast_en_ja"
DRAWS = np.random.default_rng(2).normal(0.1, 0.05, 5)
HEAD = {"mode": "swap", "norm": "", "coefficient": np.nan}


def made(aligned: float, stream: float, model: str = "main", step: int = 512) -> pd.DataFrame:
    """Effects of aligned features, of 5 random draws of about 0.1, of all, and of the whole stream."""
    same = {**HEAD, "model": model, "recipient": step, "donor": step}
    rows = [axes("none", model=model, recipient=step) | metric(CONTRAST, -3.0, np.nan, np.nan)]
    drawn = [axes("aligned", control="random", seed=n, drawn_from="others", widening=1.1, **same) for n in range(5)]
    kinds = [("aligned", aligned), ("all", 1.5), ("stream", stream)]
    changes = [(axes(kind, features=100 if kind == "aligned" else 250, **same), effect) for kind, effect in kinds]
    for row, change in [*changes, *zip(drawn, DRAWS, strict=True)]:
        rows.append(row | metric(CONTRAST, change - 3.0, change, 0.1))
    return frame(rows)


def asked(table: pd.DataFrame, **families: str) -> tuple[pd.DataFrame, list[Table]]:
    metrics, named = metrics_of(table, LANGUAGES), table.assign(family=table["model"].map(families))
    return swap_shares(blocks(settled(named), metrics, LANGUAGES), metrics, samples_of(table))


def joined(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table.assign(hash=table["hash"] + f"-{number}") for number, table in enumerate(tables)])


@pytest.mark.parametrize(("effect", "verdict"), [(1.0, "higher"), (0.2, "as random"), (-0.6, "lower")])
def test_an_effect_is_a_share_of_the_whole_streams_and_is_compared_with_random_features(
    effect: float, verdict: str
) -> None:
    found, (table,) = asked(made(effect, 2.0))
    row = found.set_index("kind").loc["aligned"]
    assert row["share"] == pytest.approx(effect / 2) and row["share_low"] < row["share"] < row["share_high"]
    assert row["random"] == pytest.approx(DRAWS.mean() / 2) and row["draws"] == 5 and row["verdict"] == verdict
    assert row["by"] == pytest.approx(effect / 2 - DRAWS.mean() / 2) and row["by_low"] < row["by"] < row["by_high"]
    shown = {line[0][0].text: [piece[0].text for piece in line] for line in table.rows}
    assert shown["Stream"][1:] == ["", "+2.000 (+1.900 to +2.100) nats"]
    assert shown["Aligned"][2].startswith(f"{effect / 2:.2f} (".replace("-", "−"))
    assert shown["Aligned"][2].endswith(f"; random {DRAWS.mean() / 2:.2f}: {verdict}")


def test_one_draw_of_random_features_decides_nothing() -> None:
    table = made(1.0, 2.0)
    found, _ = asked(table[(table["control"] != "random") | (table["seed"] == 0)])
    row = found.set_index("kind").loc["aligned"]
    assert row["draws"] == 1 and np.isnan(row["by_low"]) and row["verdict"] == "undecided"


def test_nothing_is_said_where_the_whole_stream_does_nothing() -> None:
    found, (table,) = asked(made(1.0, 0.05))
    kinds = found[found["kind"] != "stream"]
    assert (kinds["verdict"] == "no claim").all() and "share" not in found
    assert [line[2][0].text for line in table.rows][:2] == ["no claim", "no claim"]


def test_curves_have_a_panel_for_each_lm_and_no_point_where_nothing_is_said() -> None:
    parts = [made(0.1, 0.05, step=128), made(0.5, 2.0), made(1.0, 2.0, step=2048), made(0.1, 2.0, "control")]
    (picture,) = swap_pictures(asked(joined(*parts))[0])
    assert picture.name == "swap_over_recipient" and set(picture.data["panel"]) == {"main En→Ja", "control En→Ja"}
    data = picture.data
    assert data["value"].notna().all()
    shares = data[data["row"].str.startswith("share of the effect")]
    mine = shares[(shares["panel"] == "main En→Ja") & (shares["line"] == "aligned")]
    assert dict(zip(mine["x"][~mine["dashed"]], mine["value"][~mine["dashed"]], strict=True)) == {512: 0.25, 2048: 0.5}
    assert mine["dashed"].sum() == 2
    stream = data[data["line"] == "whole stream"]
    assert sorted(stream["x"]) == [128, 512, 512, 2048]
    features = data[data["row"].str.startswith("share of features")]
    assert (features["value"] == 0.4).all()


def test_nothing_claimed_and_no_random_features_still_make_curves() -> None:
    tables = (made(0.1, 0.05, step=128), made(0.1, 0.05))
    (picture,) = swap_pictures(asked(joined(*(table[table["control"] == ""] for table in tables)))[0])
    assert set(picture.data["row"].str.partition("\n")[0]) == {"effect of the stream", "share of features"}


def test_two_saes_of_a_layer_are_two_panels() -> None:
    other = made(0.6, 2.0).assign(sae=lambda table: table["sae"].where(table["kind"] == "none", "topk-2"))
    (picture,) = swap_pictures(asked(joined(made(0.1, 2.0), other, made(0.5, 2.0, step=2048)))[0])
    stream = picture.data[picture.data["line"] == "whole stream"]
    assert sorted(zip(stream["panel"], stream["x"], strict=True)) == [
        ("main En→Ja", 2048),
        ("main En→Ja, topk-1", 512),
        ("main En→Ja, topk-2", 512),
    ]


def test_several_seeds_of_an_lm_have_a_table_with_an_interval_over_them() -> None:
    both = joined(made(1.0, 2.0, "main"), made(0.6, 2.0, "seed1"), made(0.2, 2.0, "other"))
    *_, table = asked(both, main="main", seed1="main")[1]
    assert table.title == "Over LM seeds: main" and len(asked(both)[1]) == 3
    texts = {line[3][0].text: line[4][0].text for line in table.rows}
    assert texts["Aligned"].startswith("0.40 (") and texts["Aligned"].endswith("; 2")
