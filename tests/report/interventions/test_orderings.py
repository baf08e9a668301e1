import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from bisae.report.interventions.blocks import Block, Metric, blocks, metrics_of, settled
from bisae.report.interventions.orderings import orderings, orderings_tables
from tests.report.interventions.fixture import axes, frame, metric, samples_of

LANGUAGES = ["en", "ja"]
DRAWS = np.random.default_rng(5).normal(-0.2, 0.1, 20)


def with_draws(bi: float, drawn_from: str = "others", widening: float = 1.4) -> pd.DataFrame:
    """Changes of perplexity: of Bi, and of 20 random draws of about -0.2."""
    rows = [axes("none") | metric("perplexity_en", 20.0, np.nan, np.nan)]
    rows.append(axes("bi") | metric("perplexity_en", 20 + bi, bi, 0.05))
    for seed, change in enumerate(DRAWS):
        row = axes("bi", control="random", seed=seed, drawn_from=drawn_from, widening=widening)
        rows.append(row | metric("perplexity_en", 20 + change, change, 0.05))
    return frame(rows)


def asked(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Block], list[Metric]]:
    metrics = metrics_of(table, LANGUAGES)
    found = blocks(settled(table), metrics, LANGUAGES)
    return orderings(found, metrics, LANGUAGES, samples_of(table)), found, metrics


def against_random(table: pd.DataFrame) -> pd.Series:
    return asked(table)[0].set_index("ordering").loc["Bi is better than its control random"]


@pytest.mark.parametrize(("bi", "holds", "rank"), [(-0.7, "yes", 1), (-0.22, "undecided", 8), (0.3, "no", 21)])
def test_a_kind_is_better_than_random_only_where_an_ordinary_draw_hardly_would_be(
    bi: float, holds: str, rank: int
) -> None:
    table = with_draws(bi)
    found, drawn = against_random(table), DRAWS
    assert (found["holds"], found["draws"], found["drawn_from"]) == (holds, 20, "others")
    assert found["rank"] == 1 + sum(drawn < bi) and (found["rank"] == rank or holds == "undecided")
    assert found["s"] == pytest.approx(np.std(drawn, ddof=1)) and found["by"] == pytest.approx(np.mean(drawn) - bi)
    samples = samples_of(table)
    paired = samples["1"]["perplexity_en"] - np.mean([samples[str(n)]["perplexity_en"] for n in range(2, 22)], axis=0)
    far = t.ppf(0.975, 19) * np.sqrt(found["s"] ** 2 * (1.4 + 1 / 20) + np.var(paired, ddof=1))
    assert (found["low"], found["high"]) == pytest.approx((found["by"] - far, found["by"] + far))


def test_draws_from_all_features_are_not_widened_whatever_a_row_says() -> None:
    near, wide = (against_random(with_draws(-0.5, drawn_from, 9.0)) for drawn_from in ("all", "others"))
    assert (near["holds"], near["widening"], near["drawn_from"]) == ("yes", 1.0, "all")
    assert (wide["holds"], wide["widening"]) == ("undecided", 9.0)


def test_the_table_says_the_place_among_the_draws() -> None:
    held, _, metrics = asked(with_draws(-0.7))
    shown = {table.title: table.rows[0][1][0].text for table in orderings_tables(held, metrics)}
    assert shown["Bi is better than its control random"] == "yes (1 of 21)"
    assert shown["Bi is better than –"] == "yes"


def test_draws_of_a_former_run_from_all_features_are_left_out_where_there_are_some_from_the_others() -> None:
    old = with_draws(-0.7, drawn_from="").query("control == 'random'")
    both = pd.concat([with_draws(-0.7), old.assign(seed=old["seed"] + 10, perplexity_en_change=-9.0)])
    both["hash"] = [str(number) for number in range(len(both))]
    assert against_random(both)["draws"] == 20 and against_random(both)["holds"] == "yes"


def test_every_kind_is_held_against_its_own_draws() -> None:
    rows = [axes("none") | metric("perplexity_en", 20.0, np.nan, np.nan)]
    for kind, change in (("en", -1.0), ("aligned", -0.2), ("ids:3,17", -0.2)):
        rows.append(axes(kind) | metric("perplexity_en", 20 + change, change, 0.05))
        for seed, drawn in enumerate(DRAWS):
            rows.append(axes(kind, control="random", seed=seed) | metric("perplexity_en", 20 + drawn, drawn, 0.05))
    held = asked(frame(rows))[0].set_index("ordering")["holds"].to_dict()
    assert held == {
        "En is better than its control random": "yes",
        "Aligned is better than its control random": "undecided",
        "features 3, 17 is better than its control random": "undecided",
    }


def test_what_only_one_draw_has_is_undecided() -> None:
    table = with_draws(-0.7)
    table.loc[table["seed"] > 0, [name for name in table if name.startswith("perplexity")]] = np.nan
    found = against_random(table)
    assert (found["holds"], found["draws"]) == ("undecided", 1) and np.isnan(found["s"])
