"""Tables of interventions made up for the report: the slides' numbers, and many recipients with every control."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

SLIDES = {  # PPL En, Ja, all; COMET En→Ja, Ja→En
    "none": (18.70, 25.78, 22.43, 0.611, 0.564),
    "en": (18.53, 25.64, 22.28, 0.614, 0.569),
    "ja": (18.65, 25.33, 22.17, 0.613, 0.572),
    "bi": (18.36, 25.20, 21.96, 0.625, 0.572),
}
METRICS = ("perplexity_en", "perplexity_ja", "perplexity_all", "comet_en_ja", "comet_ja_en")
LEVELS = {"loss": 3.0, "source_gain": 0.8, "chrf": 21.0, "bleu": 9.0}
ALL = (*METRICS, *(f"{name}_{direction}" for name in LEVELS for direction in ("en_ja", "ja_en")))
DOCUMENTED = {"random": 0.1, "shuffled": 0.3, "self": -0.2}  # of the change of the kind beside which a control stands


def axes(kind: str, **other: Any) -> dict[str, Any]:
    """The axes of a row: of a plain `add` at layer 2, or of none."""
    made: dict[str, Any] = {
        "model": "main",
        "donor_model": "",
        "donor": 2048,
        "recipient": 512,
        "layers": "2",
        "sae": "topk-1",
        "limit": "",
        "kind": kind,
        "control": "",
    }
    made |= {"mode": "add", "norm": "donor", "coefficient": 1.0, "seed": None, "features": 100, "change": 0.1}
    made |= {"drawn_from": "", "widening": np.nan}
    if kind == "none":
        made |= {
            "donor": None,
            "layers": "",
            "sae": "",
            "mode": "",
            "norm": "",
            "coefficient": np.nan,
            "features": None,
        }
        made |= {"change": np.nan}
    return made | {"touched": 0.5, "hash": "0"} | other


def frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows).astype({"donor": "Int64", "seed": "Int64", "features": "Int64"})
    return table.assign(hash=[str(number) for number in range(len(table))])


def samples_of(table: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """Changes of resamples that have the table's intervals; nothing where it has none."""
    rng = np.random.default_rng(1)
    found: dict[str, dict[str, np.ndarray]] = {}
    for row in table.to_dict("records"):
        for name in [column.removesuffix("_change") for column in table if column.endswith("_change")]:
            low, high = row[f"{name}_change_low"], row[f"{name}_change_high"]
            if not np.isnan(high - low):
                drawn = row[f"{name}_change"] + (high - low) / 3.92 * rng.normal(size=400)
                found.setdefault(row["hash"], {})[name] = drawn
    return found


def slides_table() -> pd.DataFrame:
    """The slides' numbers, which have no intervals."""
    rows = []
    for kind, values in SLIDES.items():
        row = axes(kind)
        for name, value, none in zip(METRICS, values, SLIDES["none"], strict=True):
            row |= metric(name, value, np.nan if kind == "none" else value - none, np.nan)
        rows.append(row)
    return frame(rows)


def metric(name: str, value: float, change: float, reach: float) -> dict[str, float]:
    """Its columns: intervals of `reach` to both sides."""
    made = {name: value, f"{name}_low": value - 1, f"{name}_high": value + 1, f"{name}_change": change}
    return made | {f"{name}_change_low": change - reach, f"{name}_change_high": change + reach}


def full_table(
    recipients: Sequence[int] = (512,),
    coefficients: Sequence[float] = (1.0,),
    kinds: Sequence[str] = ("en", "ja", "bi", "mixed", "all"),
    controls: Sequence[str] = ("random", "shuffled", "self"),
    names: Sequence[str] = ALL,
) -> pd.DataFrame:
    """Every kind with its controls, three draws of random, with intervals; all numbers told by the seed."""
    rng = np.random.default_rng(0)
    rows = []
    for recipient in recipients:
        plain = {name: _level(name, recipient) for name in names}
        rows.append(axes("none", recipient=recipient))
        for name, level in plain.items():
            rows[-1] |= metric(name, level, np.nan, np.nan)
        for coefficient in coefficients:
            for kind in kinds:
                effect = {"en": 0.4, "ja": 0.5, "bi": 1.0}.get(kind, 0.7)
                for control, share in {"": 1.0, **{name: DOCUMENTED[name] for name in controls}}.items():
                    for seed in range(3) if control == "random" else [None]:
                        row = axes(kind, recipient=recipient, coefficient=coefficient, control=control, seed=seed)
                        for name, level in plain.items():
                            better = -1 if name.startswith(("perplexity", "loss")) else 1
                            change = better * level * 0.02 * effect * share * coefficient * (2 - coefficient / 2)
                            change += level * 0.001 * rng.normal()
                            row |= metric(name, level + change, change, level * 0.003)
                        rows.append(row)
    return frame(rows)


def _level(name: str, recipient: int) -> float:
    family, _, of = name.partition("_")
    if family == "perplexity":
        return {"en": 30.0, "ja": 45.0}.get(of, 38.0) * (1 + 3000 / (recipient + 50))
    return {"comet": 0.6, "source": LEVELS["source_gain"]}.get(family, LEVELS.get(family, 1.0))
