"""The matrix of languages against languages, from a made-up table of three languages."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bisae.report.interventions.blocks import settled
from bisae.report.interventions.figures_languages import draw_languages
from bisae.report.interventions.languages import language_matrix
from bisae.report.markup import Table
from tests.report.interventions.fixture import axes, frame, metric, samples_of

LANGUAGES = ["de", "en", "ja"]
RISE = {"de": (0.5, 0.2, 0.0), "en": (0.1, 0.4, 0.0), "ja": (0.02, 0.0, 0.05), "bi": (0.3, 0.3, 0.3)}
NOISE = np.random.default_rng(4).normal(0, 0.01, (20, 3))


def made(recipient: int = 2048, layers: str = "2", draws: int = 20, languages: int = 3) -> pd.DataFrame:
    """Each kind taken out, with random draws that harm every language by about 0.1, de by 0.05 more."""
    same = {
        "recipient": recipient,
        "donor": recipient,
        "layers": layers,
        "mode": "ablate",
        "norm": "",
        "coefficient": np.nan,
    }
    rows = [axes("none", recipient=recipient)]
    for code in LANGUAGES[:languages]:
        rows[0] |= metric(f"cross_entropy_{code}", 3.0, np.nan, np.nan)
    for kind, rise in RISE.items():
        drawn = [np.array([0.15, 0.1, 0.1]) + NOISE[draw] for draw in range(draws)]
        for seed, change in [(None, np.array(rise)), *enumerate(drawn)]:
            row = axes(
                kind, **same, seed=seed, control="" if seed is None else "random", drawn_from="others", widening=1.2
            )
            for code, value in zip(LANGUAGES[:languages], change, strict=False):
                row |= metric(f"cross_entropy_{code}", 3.0 + value, value, 0.01)
            rows.append(row)
    return frame(rows)


def asked(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Table]]:
    return language_matrix(settled(table), LANGUAGES, samples_of(table))


def test_specificity_is_the_difference_of_two_rises_less_that_of_random_features() -> None:
    matrix, (table,) = asked(made())
    found = matrix.set_index(["kind", "text"])
    assert len(found) == 4 * 3 and found["change"].loc["de"].tolist() == [0.5, 0.2, 0.0]
    drawn = NOISE + [0.15, 0.1, 0.1]
    assert found.at[("de", "en"), "specificity"] == pytest.approx(0.3 - (drawn[:, 0] - drawn[:, 1]).mean())
    assert found.at[("en", "ja"), "specificity"] == pytest.approx(0.4 - (drawn[:, 1] - drawn[:, 2]).mean())
    rest = drawn[:, 1:].mean(1)
    assert found.at[("de", "de"), "specificity"] == pytest.approx(0.5 - 0.1 - (drawn[:, 0] - rest).mean())
    assert found.at[("de", "de"), "specificity_low"] < found.at[("de", "de"), "specificity"]
    assert found["random"].loc["bi"].to_numpy() == pytest.approx(drawn.mean(0))
    verdicts = [found.at[(code, code), "verdict"] for code in LANGUAGES]
    assert verdicts == ["specific", "specific", "specific"] and found.at[("ja", "de"), "verdict"] == "specific"
    assert found["specificity"].loc["bi"].isna().all()  # of no language
    shown = {row[0][0].text: [cell[0].text for cell in row] for row in table.rows}
    assert list(shown) == ["De", "En", "Ja", "Bi"] and table.header[3:] == [
        "nats De",
        "nats En",
        "nats Ja",
        "specificity",
    ]
    assert shown["De"][3].startswith("+0.500 (+0.490 to +0.510); random +0.15") and shown["Bi"][-1] == ""
    assert shown["De"][-1].endswith(": specific (1 of 21)")


def test_features_that_harm_every_language_alike_are_not_specific() -> None:
    table = made()
    own = (table["kind"] == "en") & (table["control"] == "")
    for code, rise in zip(LANGUAGES, (0.95, 0.9, 0.9), strict=True):
        table.loc[own, f"cross_entropy_{code}_change"] = rise
        table.loc[own, [f"cross_entropy_{code}_change_{end}" for end in ("low", "high")]] = rise - 0.01, rise + 0.01
    found = asked(table)[0].set_index(["kind", "text"])
    assert found.at[("en", "en"), "verdict"] == "as random" and found.at[("en", "de"), "verdict"] == "as random"


def test_without_draws_the_matrix_stands_alone_and_without_a_second_language_or_ablation_there_is_none() -> None:
    matrix, tables = asked(made(draws=0))
    assert len(matrix) == 12 and "specificity" not in matrix and len(tables) == 1
    assert asked(made(languages=1))[0].empty and asked(made().assign(mode="add"))[0].empty


def test_each_step_and_layer_is_a_panel_and_steps_make_a_curve(tmp_path: Path) -> None:
    table = pd.concat([made(step, layer, draws=2) for step in (512, 2048) for layer in ("2", "10")], ignore_index=True)
    table["hash"] = [str(number) for number in range(len(table))]
    matrix, tables = asked(table)
    assert len(tables) == 4
    drawn = draw_languages(matrix, LANGUAGES, tmp_path)
    assert set(drawn) == {"languages_main_ablate", "specificity_main_ablate"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.values())
    assert set(draw_languages(matrix[matrix["recipient"] == 512], LANGUAGES, tmp_path)) == {"languages_main_ablate"}


def test_two_donors_and_two_saes_of_a_layer_are_never_one_matrix(tmp_path: Path) -> None:
    own, other = made(512, draws=2), made(512, draws=2).assign(donor=128)
    saes = [made(2048, draws=2).assign(sae=f"topk-{number}") for number in (1, 2)]
    table = pd.concat([own, other, *saes], ignore_index=True).astype({"donor": "Int64"})
    table["hash"] = [str(number) for number in range(len(table))]
    assert set(draw_languages(asked(table)[0], LANGUAGES, tmp_path)) == {
        "languages_main_ablate",
        "languages_main_ablate_from-step-128",
        "languages_main_ablate_topk-1",
        "languages_main_ablate_topk-2",
    }


def test_seeds_of_an_lm_have_a_matrix_with_intervals_over_them() -> None:
    both = pd.concat([made(), made().assign(model="seed1", hash=lambda t: t["hash"] + "s")]).assign(family="main")
    matrix, tables = asked(both)
    assert [table.title.partition(",")[0] for table in tables] == ["main", "seed1", "Over LM seeds: main"]
    shown = {tuple(cell[0].text for cell in row[-5:-3]): [cell[0].text for cell in row[-3:]] for row in tables[-1].rows}
    assert shown["nats En", "De"][0] == "+0.200 (+0.200 to +0.200); 2" and shown["nats En", "Bi"][2] == "–"
    of_first = matrix.set_index(["model", "kind", "text"]).at[("main", "de", "en"), "specificity"]
    assert shown["nats En", "De"][2].startswith(f"{of_first:+.3f} (") and set(matrix["family"]) == {"main"}
