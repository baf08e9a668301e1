import numpy as np
import pandas as pd
import pytest

from bisae.report.interventions.blocks import Block, Metric, blocks, metrics_of, settled, side_by_side, title
from bisae.report.interventions.orderings import orderings, orderings_tables
from bisae.report.interventions.tables import interventions_tables, slides_table
from bisae.report.markup import Table, markdown
from tests.report.interventions.fixture import axes, frame, full_table, metric, samples_of
from tests.report.interventions.fixture import slides_table as slides_numbers

LANGUAGES = ["en", "ja"]
NAMES = ("perplexity_en", "perplexity_ja")


def blocks_of(table: pd.DataFrame) -> tuple[list[Block], list[Metric]]:
    metrics = metrics_of(table, LANGUAGES)
    return blocks(settled(table), metrics, LANGUAGES), metrics


def texts(table: Table) -> list[list[str]]:
    return [["".join(piece.text for piece in cell) for cell in row] for row in table.rows]


def column(table: Table, label: str) -> dict[str, str]:
    """By the label of the row."""
    at = list(table.header).index(label)
    return {row[0]: row[at] for row in texts(table)}


def test_the_slides_table_is_the_slides_table() -> None:
    (block,), metrics = blocks_of(slides_numbers())
    assert markdown(slides_table(block, metrics, LANGUAGES)).split("\n\n")[1] == (
        "| Add | PPL En ↓ | PPL Ja ↓ | PPL all ↓ | COMET En→Ja ↑ | COMET Ja→En ↑ |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| – | 18.70 | 25.78 | 22.43 | 61.1 | 56.4 |\n"
        "| En | 18.53 | 25.64 | 22.28 | 61.4 | 56.9 |\n"
        "| Ja | 18.65 | 25.33 | 22.17 | 61.3 | 57.2 |\n"
        "| Bi | 18.36 | 25.20 | 21.96 | 62.5 | 57.2 |"
    )


def test_how_translations_are_scored_stands_below_every_table() -> None:
    table = full_table(kinds=("en",), controls=())
    mecab, spaces = "nrefs:1|tok:ja-mecab-0.996-IPA", "nrefs:1|tok:13a"
    (block,), metrics = blocks_of(table.assign(bleu_en_ja_signature=mecab, bleu_ja_en_signature=spaces))
    for made in interventions_tables(block, metrics):
        assert list(made.foot)[1:] == [f"BLEU En→Ja: {mecab}.", f"BLEU Ja→En: {spaces}."]
    assert "tok:13a" in markdown(interventions_tables(block, metrics)[-1])


def test_without_comet_the_slides_table_has_the_next_translation_metric() -> None:
    (block,), metrics = blocks_of(full_table().drop(columns=["comet_en_ja", "comet_ja_en"]))
    assert list(slides_table(block, metrics, LANGUAGES).header)[4:] == ["loss En→Ja ↓", "loss Ja→En ↓"]


def test_kinds_come_in_order_each_with_its_controls_below_it() -> None:
    kinds = ("ids:3,17", "all", "bi", "aligned", "mixed", "ja", "en")
    (block,), metrics = blocks_of(full_table(kinds=kinds, controls=("self", "random"), names=NAMES))
    first = [row[0] for row in texts(interventions_tables(block, metrics)[0])]
    shown = ["En", "Ja", "Bi", "Aligned", "Mixed", "All", "features 3, 17"]
    assert first == ["–", *(f for k in shown for f in (k, f"random (as {k}), 3 draws of all", f"self (as {k})"))]


def test_a_cell_holds_value_change_and_interval_and_none_only_its_value() -> None:
    row = axes("bi") | metric("perplexity_en", 18.0, -0.7, 0.1) | metric("comet_en_ja", 0.625, 0.014, 0.002)
    plain = axes("none") | metric("perplexity_en", 18.7, np.nan, np.nan) | metric("comet_en_ja", 0.611, np.nan, np.nan)
    (block,), metrics = blocks_of(frame([plain, row]))
    (table,) = interventions_tables(block, metrics)
    assert column(table, "PPL En ↓") == {"–": "18.70", "Bi": "18.00 (−0.70; −0.80 to −0.60)"}
    assert column(table, "COMET En→Ja ↑") == {"–": "61.1", "Bi": "62.5 (+1.4; +1.2 to +1.6)"}
    assert column(table, "features") == {"–": "", "Bi": "100"}


def test_draws_of_random_are_their_mean_and_where_such_sets_lie() -> None:
    changes = (-0.2, 0.1, 0.4)
    draws = [
        axes("bi", control="random", seed=seed, drawn_from="others", widening=1.5)
        | metric("perplexity_en", 18 + change, change, 0.1)
        for seed, change in enumerate(changes)
    ]
    plain = axes("none") | metric("perplexity_en", 18.0, np.nan, np.nan)
    (block,), metrics = blocks_of(frame([plain, axes("bi") | metric("perplexity_en", 17.0, -1.0, 0.1), *draws]))
    (table,) = interventions_tables(block, metrics)
    # 0.3 over draws, times sqrt(1.5 + 1/3), times 4.303, Student's for 2 degrees of freedom: 1.748
    assert column(table, "PPL En ↓")["random (as Bi), 3 draws of others"] == "18.10 (+0.10; −1.65 to +1.85)"


@pytest.mark.parametrize(
    ("en", "ja", "marked"),
    [
        ((-1.0, 0.1), (-0.5, 0.1), {"En"}),
        ((-1.0, 2.0), (-0.5, 0.1), set()),  # the best is not apart from none, the other is not the best
        ((1.0, 0.1), (2.0, 0.1), set()),  # apart from none, but worse
        ((-1.0, 0.1), (-1.0, 0.1), {"En", "Ja"}),
        ((-1.0, np.nan), (-0.5, np.nan), set()),
    ],
)
def test_the_best_kind_is_marked_where_it_is_apart_from_none(
    en: tuple[float, float], ja: tuple[float, float], marked: set[str]
) -> None:
    rows = [axes("none") | metric("perplexity_en", 20.0, np.nan, np.nan)]
    rows += [axes(kind) | metric("perplexity_en", 20 + c[0], *c) for kind, c in (("en", en), ("ja", ja))]
    rows.append(axes("en", control="self") | metric("perplexity_en", 1.0, -19.0, 0.1))  # controls are not in the race
    (block,), metrics = blocks_of(frame(rows))
    (table,) = interventions_tables(block, metrics)
    assert {row[0][0].text for row in table.rows if row[-1][0].style == "peak"} == marked


def test_each_setting_is_a_block_beside_none_of_its_own_checkpoint() -> None:
    table = full_table((128, 512), (0.5, 1.0), kinds=("bi",), controls=(), names=NAMES)
    other = table.assign(model="control", perplexity_en=table["perplexity_en"] + 7)
    found, _ = blocks_of(pd.concat([table, other]))
    places = [(b.axes["model"], b.axes["recipient"], b.axes["coefficient"]) for b in found]
    assert places == [(m, r, c) for m in ("main", "control") for r in (128, 512) for c in (0.5, 1.0)]
    for block in found:
        same = pd.concat([table, other]).query(f"kind == 'none' and recipient == {block.axes['recipient']}")
        expected = same.loc[same["model"] == block.axes["model"], "perplexity_en"].item()
        assert block.rows["kind"].tolist() == ["none", "bi"]
        assert block.rows["perplexity_en"].iloc[0] == expected


def test_a_mode_without_donor_and_norm_has_a_block_too() -> None:
    row = axes("bi", donor=None, mode="ablate", norm="", coefficient=np.nan) | metric("perplexity_en", 19.0, 1.0, 0.1)
    (block,), _ = blocks_of(frame([axes("none") | metric("perplexity_en", 18.0, np.nan, np.nan), row]))
    assert block.title == "main, step 512, layer 2, ablate"
    assert block.rows["kind"].tolist() == ["none", "bi"]


def test_kinds_of_limited_size_are_another_block() -> None:
    rows = [axes("none") | metric("perplexity_en", 20.0, np.nan, np.nan)]
    for kind, limit, features, change in (("en", "", 40, -0.1), ("bi", "", 90, -0.2), ("bi", "equal", 40, -0.3)):
        rows.append(axes(kind, features=features, limit=limit) | metric("perplexity_en", 20.0, change, 0.0))
    (whole, equal), _ = blocks_of(frame(rows))
    assert [block.rows["kind"].tolist() for block in (whole, equal)] == [["none", "en", "bi"], ["none", "bi"]]
    assert equal.title == f"{whole.title}, features equal"


def test_saes_of_a_layer_are_blocks_of_their_own_and_only_then_named() -> None:
    table = full_table(kinds=("bi",), controls=(), names=NAMES)
    other = table.assign(sae=table["sae"].replace("topk-1", "topk-2"), perplexity_en=7.0).query("kind != 'none'")
    assert "topk" not in blocks_of(table)[0][0].title
    found, _ = blocks_of(pd.concat([table, other]))
    assert [block.title.split(", ")[-1] for block in found] == ["topk-1", "topk-2"]
    assert found[1].rows["perplexity_en"].iloc[-1] == 7.0


def test_metrics_without_a_value_are_left_out_and_other_languages_are_named() -> None:
    table = full_table(names=("perplexity_fr", "perplexity_all", "bleu_en_fr")).assign(comet_en_fr=np.nan)
    assert [m.title for m in metrics_of(table, ["en", "fr"])] == ["PPL Fr ↓", "PPL all ↓", "BLEU En→Fr ↑"]


def test_families_are_not_cut_in_two() -> None:
    packs = [[m.name for m in pack] for pack in side_by_side(metrics_of(full_table(), LANGUAGES), 3)]
    assert packs[0] == ["perplexity_en", "perplexity_ja", "perplexity_all"]
    assert [len(pack) for pack in packs] == [3, 2, 2, 2, 2, 2]


def test_a_title_leaves_out_what_has_no_value() -> None:
    assert title({"model": "m", "layers": "1+2", "donor": pd.NA, "norm": ""}) == "m, layer 1+2"


def held(changes: dict[tuple[str, str], tuple[float, float]], name: str = "perplexity_en") -> dict[str, str]:
    """By ordering: of changes (value, reach) by kind and control."""
    rows = [axes("none") | metric(name, 20.0, np.nan, np.nan)]
    for (kind, control), change in changes.items():
        rows.append(axes(kind, control=control) | metric(name, 20.0 + change[0], *change))
    table = frame(rows)
    found, metrics = blocks_of(table)
    return orderings(found, metrics, LANGUAGES, samples_of(table)).set_index("ordering")["holds"].to_dict()


def test_an_ordering_holds_where_intervals_are_apart() -> None:
    found = held(
        {("en", ""): (-0.5, 0.1), ("ja", ""): (-0.1, 0.1), ("bi", ""): (-1.0, 0.1), ("bi", "random"): (-0.95, 0.1)}
    )
    assert found == {
        "Bi is the best of En, Ja, Bi": "yes",
        "Bi is better than –": "yes",
        "Bi is better than its control random": "undecided",
        "En helps En more than Ja does": "yes",
    }


def test_what_two_changes_share_does_not_blur_their_difference() -> None:
    rows = [axes("none") | metric("perplexity_en", 20.0, np.nan, np.nan)]
    rows += [axes(kind) | metric("perplexity_en", 19.0, change, 2.0) for kind, change in (("en", -1.0), ("bi", -1.2))]
    table = frame(rows)
    found, metrics = blocks_of(table)
    shared = np.random.default_rng(0).normal(size=400)
    samples = {one.hash: {"perplexity_en": one.perplexity_en_change + shared} for one in table.iloc[1:].itertuples()}
    held = orderings(found, metrics, LANGUAGES, samples).set_index("ordering")["holds"].to_dict()
    assert held == {"Bi is the best of En, Bi": "yes", "Bi is better than –": "undecided"}


def test_an_ordering_does_not_hold_where_another_is_better_and_apart() -> None:
    found = held(
        {("en", ""): (-0.1, 0.1), ("ja", ""): (-0.5, 0.1), ("bi", ""): (0.3, 0.1), ("bi", "self"): (-1.0, 0.1)}
    )
    assert set(found.values()) == {"no"} and len(found) == 4


def test_higher_is_better_for_translation_metrics() -> None:
    found = held({("en", ""): (0.1, 0.1), ("ja", ""): (0.2, 0.1), ("bi", ""): (1.0, 0.1)}, "chrf_en_ja")
    assert found == {"Bi is the best of En, Ja, Bi": "yes", "Bi is better than –": "yes"}


def test_without_intervals_or_without_bi_nothing_is_claimed() -> None:
    found, metrics = blocks_of(slides_numbers())
    table = orderings(found, metrics, LANGUAGES, {})
    assert set(table["holds"]) == {"undecided"}
    best = table.query("ordering == 'Bi is the best of En, Ja, Bi' and metric == 'perplexity_en'")
    assert best["by"].item() == pytest.approx(0.17)  # but by how much is told
    assert list(held({("en", ""): (-0.5, 0.1), ("ja", ""): (-0.1, 0.1)})) == ["En helps En more than Ja does"]


def test_orderings_are_shown_with_a_row_a_block() -> None:
    rows = full_table((128, 512), names=NAMES)
    found, metrics = blocks_of(rows)
    held = orderings(found, metrics, LANGUAGES, samples_of(rows))
    tables = {table.title: table for table in orderings_tables(held, metrics)}
    shown = tables["Ja helps Ja more than En does"]
    assert list(shown.header) == ["intervention", "PPL Ja ↓"]
    assert [row[0] for row in texts(shown)] == [block.title for block in found]
    assert {row[1] for row in texts(tables["Bi is better than –"])} == {"yes"}
