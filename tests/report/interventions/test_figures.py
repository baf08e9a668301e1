from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from bisae.report.interventions.blocks import metrics_of, settled
from bisae.report.interventions.figures import draw_interventions
from bisae.report.interventions.figures_kinds import draw_kinds
from bisae.report.style import look
from tests.report.interventions.fixture import full_table

LANGUAGES = ["en", "ja"]
NAMES = ("perplexity_en", "comet_en_ja")
BLOCK = "main_layer-2_add_from-step-2048_donor-norm"


def kinds(table: pd.DataFrame) -> Figure:
    done = settled(table).query("kind != 'none'")
    with look():
        figure = draw_kinds(done, metrics_of(done, LANGUAGES), LANGUAGES, "title")
        figure.draw_without_rendering()
    return figure


def drawn(figure: Figure, panel: int) -> list[tuple[float, float]]:
    """Change and place of every point of a panel, from top to bottom."""
    lines = [line for line in figure.axes[panel].lines if line.get_marker() != "None"]
    points = np.concatenate([np.asarray(line.get_xydata()) for line in lines])
    return [(float(change), float(place)) for change, place in points[points[:, 1].argsort()]]


def test_every_kind_and_control_is_drawn_where_its_change_is() -> None:
    table = full_table(kinds=("ja", "en"), controls=("self",), names=NAMES)
    figure = kinds(table)
    rows = table[table["kind"] != "none"].set_index(["kind", "control"])
    order = [("en", ""), ("en", "self"), ("ja", ""), ("ja", "self")]
    for panel, (name, factor) in enumerate((("perplexity_en", 1), ("comet_en_ja", 100))):
        expected = [rows.at[key, f"{name}_change"] * factor for key in order]
        np.testing.assert_allclose([x for x, _ in drawn(figure, panel)], expected)
        low, high = (rows.loc[order, f"{name}_change_{end}"] * factor for end in ("low", "high"))
        bars: Any = figure.axes[panel].collections[0]
        np.testing.assert_allclose([segment[:, 0] for segment in bars.get_segments()], np.stack([low, high], axis=1))
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["English", "Japanese"]


def test_random_shows_its_mean_and_every_draw() -> None:
    table = full_table(kinds=("bi",), controls=("random",), names=("perplexity_en",))
    figure = kinds(table)
    draws = table.loc[table["control"] == "random", "perplexity_en_change"]
    assert len(draws) == 3
    dots = figure.axes[0].collections[1].get_offsets()
    np.testing.assert_allclose(np.sort(np.asarray(dots)[:, 0]), np.sort(draws))
    assert drawn(figure, 0)[1][0] == pytest.approx(draws.mean())


def test_controls_are_hollow_and_kinds_are_not() -> None:
    figure = kinds(full_table(kinds=("bi",), names=("perplexity_en",)))
    faces = {line.get_marker(): to_hex(line.get_markerfacecolor()) for line in figure.axes[0].lines[1:]}
    assert [face == "#ffffff" for face in faces.values()] == [False, True, True, True]


def test_the_better_side_and_none_are_named() -> None:
    figure = kinds(full_table(names=NAMES))
    assert [axis.get_xlabel() for axis in figure.axes] == ["← better", "better →"]
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["none"]
        assert axis.lines[0].get_xdata() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "table",
    [
        full_table(),
        full_table((64, 128, 512)),
        full_table(kinds=("bi",), controls=(), names=("perplexity_en",)),
        full_table((64, 128), kinds=("en", "ids:3,17"), controls=("random",)),
    ],
    ids=["all", "recipients", "one kind", "features by number"],
)
def test_no_two_labels_overlap(table: pd.DataFrame) -> None:
    figure = kinds(table.drop(columns=[c for c in table if c.startswith(("chrf", "bleu", "loss", "source"))]))
    texts: list[Text] = [*figure.texts, *figure.legends[0].get_texts()]
    for axis in figure.axes:
        low, high = axis.get_xlim()
        texts += [label for label in axis.get_xticklabels() if low <= label.get_position()[0] <= high]
        texts += [*axis.get_yticklabels(), *axis.texts, axis.title, axis.xaxis.label]
    boxes = [text.get_window_extent() for text in texts if text.get_visible() and text.get_text()]
    assert len(boxes) > 5
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert not overlaps
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_recipients_differ_in_colour_and_of_many_the_ends_are_kept() -> None:
    figure = kinds(full_table((64, 128, 256, 512, 1024), kinds=("bi",), controls=(), names=("perplexity_en",)))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:3] == ["into step 64", "into step 256", "into step 1024"]
    assert "3 of 5 recipients are shown" in figure.get_suptitle().replace("\n", " ")
    assert len({line.get_color() for line in figure.axes[0].lines[1:]}) == 3


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """What is drawn, kept here and not written."""
    found: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> list[Path]:
        found[name] = figure
        return [folder / f"{name}.png"]

    monkeypatch.setattr("bisae.report.interventions.figures.save", keep)
    return found


def draw(table: pd.DataFrame) -> dict[str, Path]:
    return draw_interventions(settled(table), metrics_of(table, LANGUAGES), LANGUAGES, Path("figures"))


def test_there_is_a_figure_for_each_thing_that_differs(figures: dict[str, Figure]) -> None:
    found = draw(full_table((128, 512), (0.5, 1.0), kinds=("bi",), controls=(), names=("perplexity_en",)))
    halves = [f"{BLOCK}_coefficient-{c}" for c in ("0.5", "1")]
    steps = [BLOCK.replace("main", f"main_step-{step}") for step in (128, 512)]
    expected = [f"{prefix}_{half}" for prefix in ("changes_PPL", "over_recipient") for half in halves]
    assert set(found) == {*expected, *(f"over_coefficient_{step}" for step in steps)} == set(figures)
    assert all(path == Path("figures") / f"{name}.png" for name, path in found.items())


def test_a_single_kind_recipient_and_coefficient_has_the_figure_of_kinds_only(figures: dict[str, Figure]) -> None:
    draw(full_table(kinds=("bi",), controls=(), names=("perplexity_en",)))
    assert list(figures) == [f"changes_PPL_{BLOCK}_coefficient-1"]


def test_lines_go_below_none_and_random_is_dashed(figures: dict[str, Figure]) -> None:
    table = full_table((128, 512), kinds=("bi",), controls=("random", "self"), names=("perplexity_en",))
    draw(table)
    (axis,) = figures[f"over_recipient_{BLOCK}_coefficient-1"].axes
    done = table[table["kind"] == "bi"]
    mean = done[done["control"] == "random"].groupby("recipient")["perplexity_en_change"].mean()
    own = done[done["control"] == ""].set_index("recipient")["perplexity_en_change"]
    solid, dashed, none = axis.lines
    np.testing.assert_allclose(np.asarray(solid.get_ydata()), own)
    np.testing.assert_allclose(np.asarray(dashed.get_ydata()), mean)
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert none.get_ydata() == [0, 0] and axis.get_ylim()[0] < own.min()
