"""The data of figures over step, layer and size of the LM: shares of features and monosemanticity."""

from collections.abc import Sequence

import pandas as pd

from bisae.report.averages import OVER, averages, metrics_of
from bisae.report.figures_panels import Picture

SHARE, MIXTURE = "share of alive features", "share, mean score"
SCORE = "monosemanticity"
DASHED = "control LM"


def trends(cells: pd.DataFrame, band: str, panels: int) -> list[Picture]:
    """Figures over step for each LM, and over layer and size at the final checkpoint.

    `cells`: labelled cells of one SAE setting. `band`: the kind of interval, a key of `averages.OVER`. `panels`: an LM
    with more layers than this is drawn by parts of its depth.
    """
    names = metrics_of(cells)
    classes = [name.removeprefix("firing_") for name in names if name.startswith("firing_")]
    shown = [name for name in (*classes, "bilingual", "aligned", SCORE, "contextual") if name in names]
    note = f"Bands: 95 % over {OVER[band]}. Dotted: under shuffled labels or clusters (of the LM itself)."
    beside = [name for name in shown if name != "contextual"]
    pictures = [_over_step(cells, lm, beside, band, panels, note) for lm in own(cells)]

    if not cells["final"].any():  # baselines of earlier steps only
        return pictures
    final = cells[cells["final"]].sort_values(["control", "parameters", "lm", "layer"])
    final = final.assign(part=final["part"] + " layers")
    for name, line, x, label, scale in (
        ("over_layer", "lm", "height", "layer / layers of the LM", "linear"),
        ("over_size", "part", "parameters", "parameters of the LM", "log"),
    ):
        means = averages(final, [line, "control", x], shown)
        points = _points(means, band, line=means[line], panel=means["metric"], x=means[x])
        points["row"] = points["panel"].map(dict.fromkeys(classes, SHARE)).fillna(MIXTURE)
        pictures.append(Picture(name, "Final checkpoint", note, label, scale, points, DASHED))
    return pictures


def own(cells: pd.DataFrame) -> list[str]:
    """The LMs that have their own figures: all except controls, which are drawn beside the LM of their shape."""
    trained = cells[~cells["control"]]
    return list((trained if len(trained) else cells)["lm"].unique())


def with_control(cells: pd.DataFrame, lm: str) -> pd.DataFrame:
    """The cells of an LM, and of controls of its shape."""
    mine = cells[cells["lm"] == lm]
    alike = (cells[["d_model", "depth"]] == mine[["d_model", "depth"]].iloc[0]).all(axis=1)
    return pd.concat([mine, cells[cells["control"] & alike & (cells["lm"] != lm)]])


def depths(cells: pd.DataFrame, panels: int) -> pd.Series:
    """The title of each cell's panel."""
    if cells["layer"].nunique() <= panels:
        return "layer " + cells["layer"].astype(str)
    return cells["part"] + " layers"


def _over_step(cells: pd.DataFrame, lm: str, shown: Sequence[str], band: str, panels: int, note: str) -> Picture:
    both = with_control(cells, lm).sort_values(["control", "layer", "step"])
    means = averages(both.assign(panel=depths(both, panels)), ["panel", "control", "step"], shown)
    points = _points(means, band, line=means["metric"], panel=means["panel"], x=means["step"])
    points["row"] = points["line"].map({SCORE: SCORE}).fillna(SHARE)
    return Picture(f"over_step_{lm}", f"{lm}, over its training", note, "LM training step", "step", points, DASHED)


def _points(means: pd.DataFrame, band: str, **place: pd.Series) -> pd.DataFrame:
    bounds = {"low": means[f"{band}_low"], "high": means[f"{band}_high"]}
    null = means["null"].mask(means["control"])  # a third line in the style of the second would say nothing
    return means[["value"]].assign(null=null, dashed=means["control"], **bounds, **place)
