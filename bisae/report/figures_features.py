"""The data of figures of single features: distributions, thresholds, emergence and alignment."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from bisae.features.measures.language import DEAD, MIXED, class_names, shares_by_threshold
from bisae.metrics.intervals import share_interval
from bisae.report.bins import RANDOM
from bisae.report.figures_panels import Picture
from bisae.report.figures_trends import DASHED, depths, with_control

NOTE = "Bands: 95 % over features (Wilson)."
SCORES = np.linspace(0, 1, 51) ** 2  # even on the axis
THRESHOLDS = np.linspace(0.5, 0.98, 25)
BINS = 40


def living(cells: pd.DataFrame, lm: str, read: Callable[[str, str], pd.DataFrame]) -> pd.DataFrame:
    """The alive features of an LM at the last checkpoint of each phase, and of its control at the last checkpoint.

    Adds columns of their cell, and `kind`: the class, where Mixed is split in bilingual and other features.
    """
    both = with_control(cells, lm)
    last = both["step"] == both.groupby(["model", "phase"])["step"].transform("max")
    found = []
    for cell in both[last & (both["final"] | ~both["control"] | (both["lm"] == lm))].itertuples():
        features = read(cell.folder, "features")
        place = {key: getattr(cell, key) for key in ("lm", "control", "final", "phase", "layer", "part", "step")}
        found.append(features[features["class"] != DEAD].assign(**place))
    features = pd.concat(found, ignore_index=True).sort_values(["step", "layer"], kind="stable")
    return features.assign(kind=_kinds(features))


def distributions(features: pd.DataFrame, lm: str) -> Picture:
    """The share of features above each score, by class and phase, without single-token features."""
    scored = features[(features["lm"] == lm) & ~features["single_token"].astype(bool)]
    rows = [
        _share(group["monosemanticity"] > score) | {"panel": phase, "line": kind, "x": score}
        for (phase, kind), group in scored.groupby(["phase", "kind"], sort=False)
        for score in SCORES
    ]
    data = pd.DataFrame(rows).assign(row="share above this score", dashed=False, null=np.nan)
    note = (
        f"Last checkpoint of each phase, all layers, without single-token features. {NOTE} If bilingual=monosemantic, "
        "bilingual features are chosen by this score."
    )
    return Picture(f"distributions_{lm}", f"{lm}, distribution of scores", note, "monosemanticity", "root", data, "")


def thresholds(features: pd.DataFrame, lm: str, panels: int) -> Picture:
    """The share of each class by the threshold, once over contexts and once over all firings."""
    last = features[features["final"] & (features["lm"] == lm)]
    rows = []
    for panel, group in last.groupby(depths(last, panels), sort=False):
        for prefix, dashed in (("share_", False), ("firing_share_", True)):
            names = class_names([name.removeprefix(prefix) for name in group if name.startswith(prefix)])
            counts = group[[prefix + code for code in names]].to_numpy(float)
            for threshold, shares in zip(THRESHOLDS, shares_by_threshold(counts, THRESHOLDS), strict=True):
                for line, share in zip((*names.values(), MIXED), shares, strict=True):
                    place = {"panel": panel, "line": line, "dashed": dashed, "x": threshold, "value": share}
                    rows.append(place | share_interval(round(share * len(group)), len(group))._asdict())
    data = pd.DataFrame(rows).assign(row="share of alive features", null=np.nan)
    note = f"Final checkpoint. Solid: share of a feature's contexts; dashed: of all its firings. {NOTE}"
    return Picture(f"thresholds_{lm}", f"{lm}, classes by threshold", note, "threshold", "linear", data, "all firings")


def emergence(cells: pd.DataFrame, appeared: pd.DataFrame, lm: str, panels: int) -> Picture:
    """The share of the final features that exist at each step."""
    both = with_control(cells, lm)
    places = both[both["final"]].assign(panel=lambda final: depths(final, panels), end=lambda final: final["step"])
    places = places[["model", "layer", "hash", "lm", "control", "panel", "end"]]
    found = appeared.merge(places, on=["model", "layer", "hash"])
    found = found.assign(kind=_kinds(found), appears=found["appears"].fillna(found["end"]))
    groups = found.sort_values(["control", "layer"]).groupby(["control", "panel", "kind"], sort=False)
    rows = [
        _share(group["appears"] <= step) | {"panel": panel, "line": kind, "dashed": control, "x": step}
        for (control, panel, kind), group in groups
        for step in sorted(both.loc[both["lm"].isin(group["lm"]), "step"].unique())
    ]
    data = pd.DataFrame(rows).assign(row="share of final features", null=np.nan)
    note = f"Final features matched at this step and all later ones; at the last step all are, by definition. {NOTE}"
    return Picture(f"emergence_{lm}", f"{lm}, when its features appear", note, "LM training step", "step", data, DASHED)


def alignment(features: pd.DataFrame, lm: str) -> pd.DataFrame:
    """Count features by alignment and monosemanticity, for the LM, its random weights and its control.

    Features of a single token, or without an alignment, are left out. Returns the lower edges x and y of each bin and
    the count; empty if no feature is left.
    """
    known = features[~features["single_token"].astype(bool)].dropna(subset=["alignment", "monosemanticity"])
    random = (known["phase"] == RANDOM) & ~known["final"]
    panel = known["lm"].mask(known["control"], known["lm"] + " (control)").mask(random, RANDOM)
    known = known.assign(panel=panel)[known["final"] | random].sort_values(["control", "step"])
    least = math.floor(10 * min(known["alignment"].min(), 0)) / 10 if len(known) else 0
    edges = np.linspace(least, 1, BINS + 1), np.linspace(0, 1, BINS + 1)
    place = pd.MultiIndex.from_product([edges[0][:-1], edges[1][:-1]], names=["x", "y"])
    counts = []
    for name, group in known.groupby("panel", sort=False):
        value = np.histogram2d(group["alignment"], group["monosemanticity"], edges)[0].ravel()
        counts.append(pd.DataFrame({"value": value}, place).reset_index().assign(panel=name))
    return pd.concat(counts) if counts else pd.DataFrame()


def _kinds(features: pd.DataFrame) -> pd.Series:
    kind = features["class"].where(features["class"] != MIXED, "Mixed, not bilingual")
    return kind.mask(features["bilingual"].astype(bool), "bilingual")


def _share(condition: pd.Series) -> dict[str, float]:
    interval = share_interval(int(condition.sum()), len(condition))
    return {"value": float(condition.mean()), **interval._asdict()}
