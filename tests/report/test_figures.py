from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bisae.features.measures.language import shares_by_threshold
from bisae.report.figures import draw_figures
from bisae.report.figures_features import alignment, distributions, emergence, living, thresholds
from bisae.report.figures_panels import Picture, draw_densities, draw_lines
from bisae.report.figures_trends import trends
from bisae.report.style import look
from tests.report.sweep import BINS, sweep

STEPS = (0, 128, 1024, 2048)
SWEEP = sweep(("main", "large", "control"), STEPS, (0,))
CELLS = BINS.label(SWEEP.cells)


def pictures() -> dict[str, Picture]:
    features = living(CELLS, "main", SWEEP.read)
    drawn = trends(CELLS, "features", 4)
    drawn += [
        distributions(features, "main"),
        thresholds(features, "main", 4),
        emergence(CELLS, SWEEP.emergence, "main", 4),
    ]
    return {picture.name: picture for picture in drawn if picture.name != "over_step_large"}


PICTURES = pictures()
NAMES = sorted(PICTURES)


@cache
def figure(name: str) -> Figure:
    with look():
        return draw_lines(PICTURES[name])


def panels(name: str) -> Iterator[tuple[Axes, pd.DataFrame]]:
    """Each panel with what it should show."""
    expected = [rows for _, rows in PICTURES[name].data.groupby(["row", "panel"], sort=False)]
    yield from zip(figure(name).axes, expected, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_the_table_is_drawn_and_no_other(name: str) -> None:
    for axis, rows in panels(name):
        solid, dotted = (
            [line for line in axis.lines if (line.get_linestyle() == ":") == kind] for kind in (False, True)
        )
        curves = [curve.sort_values("x") for _, curve in rows.groupby(["line", "dashed"], sort=False)]
        for line, curve in zip(solid, curves, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), curve[["x", "value"]])
            assert (line.get_linestyle() == "--") == curve["dashed"].iloc[0]
        shuffled = [curve for curve in curves if curve["null"].notna().any()]
        for line, curve in zip(dotted, shuffled, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), curve[["x", "null"]])
        low = min(rows["value"].min(), rows["null"].min(), 0)
        assert axis.get_ylim()[0] <= low and axis.get_ylim()[1] >= rows["value"].max()


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_a_panel_differ_in_grey_and_bands_are_drawn(name: str) -> None:
    for axis, rows in panels(name):
        seen = [(line.get_linestyle(), line.get_marker()) for line in axis.lines]
        assert len(set(seen)) == len(seen)
        banded = [curve for _, curve in rows.groupby(["line", "dashed"]) if curve["low"].notna().any()]
        assert len(axis.collections) == len(banded) > 0


def test_an_interval_without_a_neighbour_is_a_bar_beside_the_band_of_others() -> None:
    low = [np.nan, 0.1, np.nan, 0.2, 0.3]
    data = pd.DataFrame({"x": range(5), "value": 0.5, "low": low, "high": 0.6, "null": np.nan})
    data = data.assign(row="share", panel="one", line="aligned", dashed=False)
    (axis,) = draw_lines(Picture("name", "title", "note", "x", "linear", data, "control")).axes
    collections: Any = axis.collections
    bar, band = collections
    assert [segment.tolist() for segment in bar.get_segments()] == [[[1.0, 0.1], [1.0, 0.6]]]
    assert band.get_paths()[-1].get_extents().get_points().tolist() == [[3.0, 0.2], [4.0, 0.6]]


def test_over_step_shows_the_cells_with_the_control_dashed() -> None:
    data = PICTURES["over_step_main"].data
    for dashed, model in ((False, "main"), (True, "control")):
        cell = SWEEP.cells.query(f"model == '{model}' and layer == 3 and step == 1024").iloc[0]
        for metric in ("English", "Mixed", "bilingual", "monosemanticity"):
            point = data.query(f"panel == 'layer 3' and line == '{metric}' and x == 1024 and dashed == {dashed}").iloc[
                0
            ]
            assert point["value"] == pytest.approx(cell[metric])
            assert (point["low"], point["high"]) == pytest.approx((cell[f"{metric}_low"], cell[f"{metric}_high"]))
    cell = SWEEP.cells.query("model == 'main' and layer == 3 and step == 1024").iloc[0]
    point = data.query("panel == 'layer 3' and line == 'monosemanticity' and x == 1024 and not dashed").iloc[0]
    assert point["null"] == pytest.approx(cell["monosemanticity_null"])


def test_a_deep_lm_has_a_panel_for_each_part() -> None:
    data = next(picture for picture in trends(CELLS, "features", 3) if picture.name == "over_step_main").data
    assert data["panel"].unique().tolist() == ["lower layers", "middle layers", "upper layers"]
    cells = SWEEP.cells.query("model == 'main' and layer in (2, 3) and step == 1024")
    point = data.query("panel == 'middle layers' and line == 'Mixed' and x == 1024 and not dashed")
    assert point["value"].item() == pytest.approx(cells["Mixed"].mean())


def test_over_layer_and_over_size_show_the_final_checkpoint() -> None:
    last = SWEEP.cells.query("step == 2048")
    data = PICTURES["over_layer"].data.query("line == 'large' and panel == 'bilingual'")
    assert (
        data.sort_values("x")["value"].tolist()
        == last.query("model == 'large'").sort_values("layer")["bilingual"].tolist()
    )
    size = (
        PICTURES["over_size"].data.query("line == 'middle layers' and panel == 'Mixed' and not dashed").set_index("x")
    )
    for model, parameters in (("main", 1.5e6), ("large", 3e6)):
        cells = last.query(f"model == '{model}' and layer in (2, 3)")
        assert size.at[parameters, "value"] == pytest.approx(cells["Mixed"].mean())


def test_distributions_count_the_features_of_a_phase_above_a_score() -> None:
    features = pd.concat([SWEEP.read(f"main/2048/{layer}/0", "features") for layer in (1, 2, 3, 4)])
    scores = features.query("`class` == 'English' and not bilingual and not single_token")["monosemanticity"]
    data = PICTURES["distributions_main"].data.query("panel == 'late' and line == 'English'")
    assert data["value"].tolist() == pytest.approx([(scores > score).mean() for score in data["x"]])
    assert set(PICTURES["distributions_main"].data["panel"]) == {"random weights", "early", "middle", "late"}


def test_thresholds_show_both_views() -> None:
    features = SWEEP.read("main/2048/2/0", "features").query("`class` != 'dead'")
    data = PICTURES["thresholds_main"].data.query("panel == 'layer 2'")
    for dashed, prefix in ((False, "share_"), (True, "firing_share_")):
        expected = shares_by_threshold(
            features[[f"{prefix}en", f"{prefix}ja"]].to_numpy(), np.array([data["x"].iloc[60]])
        )
        found = data[(data["x"] == data["x"].iloc[60]) & (data["dashed"] == dashed)].set_index("line")["value"]
        assert found[["English", "Japanese", "Mixed"]].tolist() == pytest.approx(expected[0].tolist())


def test_emergence_counts_features_that_have_appeared_and_all_at_the_last_step() -> None:
    table = SWEEP.emergence.query("model == 'main' and layer == 1 and bilingual")
    data = (
        PICTURES["emergence_main"]
        .data.query("panel == 'layer 1' and line == 'bilingual' and not dashed")
        .set_index("x")
    )
    assert data.at[1024, "value"] == pytest.approx((table["appears"] <= 1024).mean())
    assert data.at[2048, "value"] == 1
    assert table["appears"].isna().any()


def test_densities_show_the_counts_of_lm_control_and_random_weights() -> None:
    counts = alignment(living(CELLS, "main", SWEEP.read), "main")
    assert counts["panel"].unique().tolist() == ["random weights", "main", "control (control)"]
    features = pd.concat([SWEEP.read(f"main/2048/{layer}/0", "features") for layer in (1, 2, 3, 4)])
    assert counts.query("panel == 'main'")["value"].sum() == len(
        features.query("`class` != 'dead' and not single_token")
    )
    drawn = draw_densities(counts, "title", "note", "x", "y").axes[1].collections[0].get_array()
    grid = counts.query("panel == 'main'").pivot(index="y", columns="x", values="value")
    np.testing.assert_array_equal(np.ma.filled(np.ma.asarray(drawn), 0).reshape(grid.shape), grid)


def test_axes_are_labelled_and_0_is_on_the_step_axis() -> None:
    axes = figure("over_step_main").axes
    assert axes[0].get_ylabel() == "share of alive features"
    assert axes[-1].get_xlabel() == "LM training step"
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["2048", "128", "0"]
    title = figure("over_step_main").get_suptitle()
    assert "95 % over features" in title and "main" in title


def test_the_legend_says_what_dashed_and_dotted_lines_are() -> None:
    legend = figure("over_step_main").legends[0]
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "English",
        "Japanese",
        "Mixed",
        "bilingual",
        "aligned",
        "monosemanticity",
        "control LM",
        "shuffled",
    ]
    handles = {
        text: handle for text, handle in zip(texts, legend.legend_handles, strict=True) if isinstance(handle, Line2D)
    }
    assert handles["control LM"].get_linestyle() == "--" and handles["shuffled"].get_linestyle() == ":"
    assert to_hex(handles["English"].get_color()) == "#0072b2"


@pytest.mark.slow
def test_figures_are_written_with_their_numbers_and_reasons_for_those_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some = sweep(("main",), (2048,), (0,))
    cells = some.cells[some.cells["layer"] < 3].assign(model="日本語 LM", family="日本語 LM")
    with caplog.at_level("INFO"):
        written = draw_figures(cells, without_alignment, pd.DataFrame(), BINS, "features", 4, tmp_path)
    names = {"over_layer", "distributions_日本語 LM", "thresholds_日本語 LM"}
    assert {path.name for path in written} == {f"{name}.{end}" for name in names for end in ("png", "pdf", "csv")}
    assert all(path.stat().st_size for path in written) and len(list(tmp_path.iterdir())) == len(written)
    assert "no figure over_size: it needs two values of parameters of the LM, the cells have 1" in caplog.text
    assert "no figure over_step_日本語 LM: it needs two values of LM training step, the cells have 1" in caplog.text
    assert "no figure emergence_日本語 LM: no LM was analysed at several steps" in caplog.text
    assert "no figure alignment_日本語 LM: no feature has an alignment" in caplog.text
    assert "fontTools" not in caplog.text


def without_alignment(folder: str, name: str) -> pd.DataFrame:
    return SWEEP.read(folder, name).assign(alignment=np.nan)


def test_baselines_are_drawn_below_trained_saes_on_the_same_scale(tmp_path: Path) -> None:
    baseline = SWEEP.cells.query("model == 'main' and step > 0").assign(baseline="frozen_encoder")
    early = SWEEP.cells.query("model == 'main' and step == 128").assign(baseline="frozen_decoder")
    cells = pd.concat([SWEEP.cells.query("model != 'large'"), baseline, early], ignore_index=True)
    draw_figures(cells, SWEEP.read, SWEEP.emergence, BINS, "features", 4, tmp_path)
    for name in ("over_step_main", "over_layer", "distributions_main", "thresholds_main", "emergence_main"):
        rows = set(pd.read_csv(tmp_path / f"{name}.csv")["row"])
        own = {row for row in rows if "\n" not in row}
        assert own and rows >= {f"{row}\nfrozen encoder" for row in own}, name
    assert {"main", "main, frozen encoder"} <= set(pd.read_csv(tmp_path / "alignment_main.csv")["panel"])
    data = pd.DataFrame({"row": ["a", "a\nb"], "panel": "p", "line": "l", "dashed": False, "x": 1, "value": [1, 2]})
    picture = Picture("n", "t", "", "x", "linear", data.assign(null=np.nan, low=np.nan, high=np.nan), "")
    above, below = draw_lines(picture).axes
    assert above.get_ylim() == below.get_ylim()


def placed(rows: dict[str, list[str]]) -> dict[tuple[int, int], Axes]:
    """The panels of a figure with these titles in its rows, by row and column; values tell them apart."""
    panels = [(row, title) for row, titles in rows.items() for title in titles]
    data = pd.DataFrame(panels, columns=["row", "panel"]).assign(line="l", dashed=False, value=range(len(panels)))
    data = pd.concat([data.assign(x=x, null=np.nan, low=np.nan, high=np.nan) for x in (1, 2)])
    drawn = draw_lines(Picture("n", "t", "", "x", "linear", data, ""))
    drawn.draw_without_rendering()
    grid = {(at.rowspan.start, at.colspan.start): axis for axis in drawn.axes if (at := axis.get_subplotspec())}
    shown = {place: panels[int(np.asarray(axis.lines[0].get_ydata())[0])] for place, axis in grid.items()}
    assert sorted(shown.values()) == sorted(panels)
    for (row, _), axis in grid.items():
        assert shown[row, min(c for r, c in grid if r == row)][0] == list(rows)[row]
        assert axis.get_ylim() == next(other.get_ylim() for (r, _), other in grid.items() if r == row)
    return grid


@pytest.mark.parametrize(
    ("rows", "titles"),
    [
        ({"a": ["1", "2", "3"], "b": ["2", "3"]}, {(1, 1): "2", (1, 2): "3"}),
        ({"a": ["1", "2", "3"], "b": ["1", "3"]}, {(1, 0): "1", (1, 2): "3"}),
        ({"a": ["1"], "b": ["2", "1"]}, {(1, 0): "1", (1, 1): "2"}),
        ({"a": ["1", "2"], "b": ["3"], "c": ["1"]}, {(1, 0): "3", (2, 0): "1"}),
        ({"a": ["1"], "b": ["3"], "c": ["1", "3"]}, {(1, 0): "3", (2, 0): "1", (2, 1): "3"}),
    ],
)
def test_panels_of_one_title_stand_below_each_other_and_say_what_they_are(
    rows: dict[str, list[str]], titles: dict[tuple[int, int], str]
) -> None:
    grid = placed(rows)
    assert {place for place in grid if place[0]} == set(titles)
    above = dict(enumerate(rows["a"]))
    for (row, column), title in sorted(titles.items()):
        expected = "" if above.get(column) == title else title
        assert grid[row, column].get_title() == expected, (row, column)
        above[column] = title
    for column in {column for _, column in grid}:
        *higher, lowest = [grid[place] for place in sorted(grid) if place[1] == column]
        assert lowest.get_xlabel() == "x" and not any(axis.get_xlabel() for axis in higher)
    for row, name in enumerate(rows):
        first = grid[row, min(column for at, column in grid if at == row)]
        assert first.get_ylabel() == name
        assert any(label.get_visible() and label.get_text() for label in first.get_yticklabels())


def test_lms_whose_parameters_are_not_known_have_no_figure_over_size() -> None:
    unknown = BINS.label(SWEEP.cells.assign(parameters=np.nan))
    drawn = {picture.name: picture for picture in trends(unknown, "features", 4)}
    assert drawn["over_size"].data.empty and len(drawn["over_layer"].data) == len(PICTURES["over_layer"].data)
