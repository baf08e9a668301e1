"""The table of claims: what a trained SAE shows, beside everything that should not show it.

A claim is a share of features or a mean over them, at the last checkpoint of an LM. It stands beside the same of the
baselines, of random LM weights, of the control LM of the same shape, and of shuffled labels; and beside the value among
stable features, which other SAE seeds find again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bisae.report.averages import averages, metrics_of
from bisae.report.bins import RANDOM
from bisae.report.markup import Piece, Table
from bisae.training.baselines import TRAINED

CLAIMS = ("Mixed", "bilingual", "aligned", "monosemanticity", "contextual")
FACTS = ("fvu", "dead", "gamma", "pw_mcc", "found_50", "found_70", "found_90")
SHUFFLED, STABLE, CONTROL = "shuffled", "stable features", "control LM"
ABOUT = (
    "Shares of alive features, and mean monosemanticity, at the LM's last checkpoint, as means over SAE seeds. ±: half "
    "of a 95 % interval over features, and 1.96 standard deviations of the trained SAEs over seeds, where there are "
    "several, added as squares. Two values differ where their distance exceeds both ± added as squares. Every line is "
    "about shares: a claim about one feature holds only if that feature is stable. Stable: in half of the other SAE "
    "seeds or more, decoder cosine and correlation of activations with its match are at least .7; found_50 and so on: "
    "shares found again at that value. Shuffled: language labels, clusters, sentence pairs; of pw_mcc, random decoders."
)


class Value(NamedTuple):
    """A mean and half of its interval; NaN where it is not known."""

    mean: float
    half: float


def claims(labelled: pd.DataFrame) -> tuple[pd.DataFrame, Table] | None:
    """The table of claims by LM and layer, tidy and to print; None if there are neither baselines nor SAE seeds.

    `labelled`: the table of cells with the columns of `Bins.label`.
    """
    if "pw_mcc" not in labelled and (labelled["SAE"] == TRAINED).all():
        return None
    rows = []
    own = labelled[labelled["final"] & ~labelled["control"] & (labelled["SAE"] == TRAINED) & (labelled["step"] > 0)]
    for (setting, lm, layer), cells in own.groupby(["setting", "lm", "layer"], sort=False):
        here = labelled[(labelled["setting"] == setting) & (labelled["layer"] == layer)]
        shape = (here[["d_model", "depth"]] == cells[["d_model", "depth"]].iloc[0]).all(axis=1)
        ended = here["final"] & (here["step"] > 0)
        mine, trained = here["lm"] == lm, here["SAE"] == TRAINED
        beside = {str(kind): same for kind, same in here[mine & ended & ~trained].groupby("SAE", observed=True)}
        beside |= {
            RANDOM: here[mine & trained & (here["step"] == 0)],
            CONTROL: here[here["control"] & shape & trained & ended],
        }
        for metric in (*_classes(labelled), *CLAIMS, *FACTS):
            if metric in cells and cells[metric].notna().any():
                place = {"setting": setting, "lm": lm, "layer": layer, "claim": metric}
                rows.append(place | _row(metric, cells, beside))
    tidy = pd.DataFrame(rows)
    return (tidy, _table(tidy)) if rows else None


def _classes(cells: pd.DataFrame) -> list[str]:
    names = [name.removeprefix("firing_") for name in metrics_of(cells) if name.startswith("firing_")]
    return [name for name in names if name not in CLAIMS]


def _row(metric: str, cells: pd.DataFrame, beside: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """The values of a metric, and which of them differ from that of the trained SAEs, and of their stable features."""
    reseed = float(cells[f"{metric}_reseed"].mean()) if f"{metric}_reseed" in cells else np.nan
    trained = _value(cells, metric, reseed)
    others = {name: _value(same, metric, reseed) for name, same in beside.items()}
    others[SHUFFLED] = Value(float(cells.get(f"{metric}_null", pd.Series(np.nan)).mean()), 0.0)
    stable = _value(cells, f"{metric}_stable", np.nan)
    row: dict[str, Any] = {}
    for name, value in {TRAINED: trained, **others, STABLE: stable}.items():
        row |= {name: value.mean, f"{name} ±": value.half}
    row["reseed"] = reseed
    if metric not in FACTS:
        known = {name: value for name, value in others.items() if not np.isnan(value.mean)}
        apart = [name for name, value in known.items() if _differ(trained, value)]
        row["differs from"] = ", ".join(apart)
        row["not from"] = ", ".join(name for name in known if name not in apart)
        if not np.isnan(stable.mean):
            sides = {name: np.sign(trained.mean - known[name].mean) for name in apart}
            row["stable alone differ from"] = ", ".join(
                name
                for name, side in sides.items()
                if _differ(stable, known[name]) and np.sign(stable.mean - known[name].mean) == side
            )
    return row


def _value(cells: pd.DataFrame, metric: str, reseed: float) -> Value:
    if metric not in cells or not cells[metric].notna().any():
        return Value(np.nan, np.nan)
    found = averages(cells.assign(all=0), ["all"], [metric]).iloc[0]
    over_features = np.nan_to_num(float(found["features_high"] - found["features_low"]) / 2)
    return Value(float(found["value"]), float(np.hypot(over_features, 1.96 * np.nan_to_num(reseed))))


def _differ(one: Value, other: Value) -> bool:
    return bool(abs(one.mean - other.mean) > np.hypot(one.half, other.half))


def _table(tidy: pd.DataFrame) -> Table:
    values = [name.removesuffix(" ±") for name in tidy if name.endswith(" ±")]
    values = [name for name in values if tidy[name].notna().any()]
    verdicts = [name for name in ("differs from", "not from", "stable alone differ from") if name in tidy]
    places = [name for name in ("setting", "lm", "layer") if tidy[name].nunique() > 1]

    def shown(row: Mapping[str, Any], name: str) -> str:
        if pd.isna(row[name]):
            return "–"
        return f"{row[name]:.3f}" + (f" ± {row[f'{name} ±']:.3f}" if row[f"{name} ±"] > 0 else "")

    def text(value: object) -> str:
        return str(value) if isinstance(value, str) and value else "–"

    rows: list[Sequence[Sequence[Piece]]] = []
    for row in tidy.to_dict("records"):
        texts = [*(str(row[name]) for name in (*places, "claim")), *(shown(row, name) for name in values)]
        rows.append([[Piece(one)] for one in [*texts, *(text(row[name]) for name in verdicts)]])
    return Table("Which claims survive", [*places, "claim", *values, *verdicts], rows, [ABOUT])
