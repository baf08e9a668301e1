"""The table of source gains: kinds are ranked only where all features together change the metric."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bisae.report.interventions.blocks import blocks, metrics_of, settled
from bisae.report.interventions.figures import draw_seeds_of_lms
from bisae.report.interventions.figures_kinds import draw_lm_seeds
from bisae.report.interventions.lm_seeds import changes_by_kind
from bisae.report.interventions.source_gain import source_gains
from bisae.report.markup import Table
from bisae.report.style import look
from tests.report.interventions.fixture import axes, frame, metric, samples_of

LANGUAGES, GAIN, LOSS = ["en", "ja"], "source_gain_en_ja", "loss_en_ja"
DRAWS = np.random.default_rng(2).normal(0, 0.01, 20)


def made(aligned: float, everything: float, model: str = "main") -> pd.DataFrame:
    """Changes of the source gain and of the loss: of aligned, of 20 random draws of about 0, and of all features."""
    rows = [axes("none", model=model) | metric(GAIN, 0.2, np.nan, np.nan) | metric(LOSS, 3.0, np.nan, np.nan)]
    drawn = [axes("aligned", control="random", seed=n, drawn_from="others", widening=1.1) for n in range(20)]
    changes = [(axes("aligned"), aligned), (axes("all"), everything), *zip(drawn, DRAWS, strict=True)]
    for row, change in changes:
        rows.append({**row, "model": model} | metric(GAIN, 0.2 + change, change, 0.02))
        rows[-1] |= metric(LOSS, 3.0 - change, -change, 0.02)
    return frame(rows)


def asked(table: pd.DataFrame, **families: str) -> tuple[pd.DataFrame, list[Table]]:
    metrics, named = metrics_of(table, LANGUAGES), table.assign(family=table["model"].map(families))
    return source_gains(blocks(settled(named), metrics, LANGUAGES), metrics, samples_of(table))


@pytest.mark.parametrize(
    ("change", "verdict", "rank"), [(-0.1, "lower", 21), (0.0, "as random", None), (0.1, "higher", 1)]
)
def test_a_kind_is_compared_with_its_random_features(change: float, verdict: str, rank: int | None) -> None:
    found = asked(made(change, -0.2))[0].set_index(["kind", "metric"])
    gain, loss = found.loc[("aligned", GAIN)], found.loc[("aligned", LOSS)]
    assert gain["verdict"] == verdict and gain["draws"] == 20 and gain["random"] == pytest.approx(DRAWS.mean())
    assert gain["by"] == pytest.approx(change - DRAWS.mean()) and gain["by_low"] < gain["by"] < gain["by_high"]
    assert gain["rank"] == (1 + sum(change < DRAWS) if rank is None else rank)
    assert loss["verdict"] == {"lower": "higher", "higher": "lower"}.get(verdict, verdict)
    assert loss["by"] == pytest.approx(-gain["by"]) and loss["rank"] == 22 - gain["rank"]
    assert found["verdict"].loc[["none", "all"]].isna().all()


def test_a_kind_is_not_ranked_where_all_features_together_move_nothing() -> None:
    found, (table,) = asked(made(0.1, 0.01))
    aligned = found[found["kind"] == "aligned"]
    assert (aligned["verdict"] == "not ranked").all() and "rank" not in found
    shown = {row[0][0].text: [cell[0].text for cell in row] for row in table.rows}
    assert list(shown) == ["–", "Aligned", "All"] and table.header[2:] == ["source gain En→Ja", "loss En→Ja"]
    assert shown["–"][1:] == ["", "0.200", "3.000"]
    assert shown["All"][2:] == ["+0.010 (−0.010 to +0.030)", "−0.010 (−0.030 to +0.010)"]
    random = f"{DRAWS.mean():+z.3f}".replace("-", "−")
    assert shown["Aligned"][2] == f"+0.100 (+0.080 to +0.120); random {random}: not ranked"


def test_each_lm_has_a_table_of_its_own_and_none_without_the_positive_control() -> None:
    both = pd.concat([made(0.1, 0.2), made(-0.1, 0.2, "control").assign(hash=lambda t: t["hash"] + "c")])
    found, tables = asked(both)
    assert [table.title.split(",")[0] for table in tables] == ["main", "control"] and set(found["model"]) == {
        "main",
        "control",
    }
    shown = next(row for row in tables[0].rows if row[0][0].text == "Aligned")[2][0].text
    assert shown.endswith(": higher (1 of 21)")
    without = made(0.1, 0.2)
    found, tables = asked(without[without["kind"] != "all"])
    assert found.empty and not tables


def test_seeds_of_an_lm_have_a_table_with_intervals_over_them() -> None:
    seeds = {"main": -0.1, "seed1": -0.06, "seed2": -0.08}
    every = [made(change, -0.2, name).assign(hash=lambda t, n=name: t["hash"] + n) for name, change in seeds.items()]
    _, tables = asked(pd.concat([*every, made(0.1, 0.2, "control")]), **dict.fromkeys(seeds, "main"))
    assert len(tables) == 5 and tables[-1].title == "Over LM seeds: main"
    assert tables[-1].header[:-1] == ["recipient", "layers", "metric", "kind", "value", "change"]
    shown = {tuple(cell[0].text for cell in row[2:4]): [cell[0].text for cell in row[4:]] for row in tables[-1].rows}
    far = 4.302653 * 0.02 / np.sqrt(3)  # Student's 97.5 % quantile of 2 degrees; the values' standard deviation
    assert shown[GAIN, "Aligned"][1] == f"−0.080 (−{0.08 + far:.3f} to −{0.08 - far:.3f}); 3"
    mean = -0.08 - DRAWS.mean()
    assert shown[GAIN, "Aligned"][2].startswith(f"{mean:.3f} ({mean - far:.3f} to ".replace("-", "−"))
    assert shown[GAIN, "–"] == ["+0.200 (+0.200 to +0.200); 3", "–", "–"]


def test_a_figure_shows_the_mean_over_lm_seeds_and_each_lm_beside_random_features(tmp_path: Path) -> None:
    families = {"main": "main", "seed1": "main", "seed2": "main", "control": "control", "control1": "control"}
    changes = dict(zip(families, (-0.1, -0.06, -0.08, 0.0, 0.01), strict=True))
    parts = [made(by, -0.2, name).assign(hash=lambda t, n=name: t["hash"] + n) for name, by in changes.items()]
    table = pd.concat([*parts, made(0.3, 0.2, "single").assign(hash=lambda t: t["hash"] + "single")])
    gains, _ = asked(table, **families)
    (seeds,) = changes_by_kind(gains)
    means = seeds.means.set_index(["family", "kind", "control"])[
        [f"{GAIN}_change{end}" for end in ("", "_low", "_high")]
    ]
    far = 4.302653 * 0.02 / np.sqrt(3)
    assert means.loc[("main", "aligned", "")].tolist() == pytest.approx([-0.08, -0.08 - far, -0.08 + far])
    assert means.loc[("control", "aligned", "random")].tolist() == pytest.approx([DRAWS.mean()] * 3)
    assert len(means) == 6 and ("main", "all", "random") not in means.index

    figures = draw_seeds_of_lms(gains, metrics_of(table, LANGUAGES), LANGUAGES, tmp_path)
    assert list(figures) == [
        f"lm_seeds_{of}_step-512_layer-2_add_from-step-2048_donor-norm_coefficient-1" for of in ("loss", "source-gain")
    ]
    with look():
        figure = draw_lm_seeds(seeds, [m for m in metrics_of(table, LANGUAGES) if m.name == GAIN], LANGUAGES, "title")
    collections: Any = figure.axes[0].collections
    bars, dots = collections
    assert len(bars.get_segments()) == 6
    shown = np.sort(np.asarray(dots.get_offsets())[:, 0])
    np.testing.assert_allclose(shown, np.sort([*changes.values(), *[DRAWS.mean()] * 5, *[-0.2] * 5]))
    assert draw_seeds_of_lms(pd.DataFrame(), [], LANGUAGES, tmp_path) == {}


def test_a_seed_without_features_of_a_kind_does_not_count() -> None:
    none = made(0.0, -0.2, "seed1")
    none = none[~((none["kind"] == "aligned") & (none["control"] == "random"))]
    none.loc[none["kind"] == "aligned", "features"] = 0
    both = pd.concat([made(-0.1, -0.2), none.assign(hash=lambda t: t["hash"] + "s")])
    table = asked(both, main="main", seed1="main")[1][-1]
    shown = {tuple(cell[0].text for cell in row[2:4]): row[5][0].text for row in table.rows}
    assert shown[GAIN, "Aligned"] == "−0.100 (–); 1" and shown[GAIN, "All"].endswith("; 2")
