"""The layout of a report of interventions: metrics, blocks, and the rows of a block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd

from bisae.features.measures.language import class_names
from bisae.report.interventions.verdicts import deviation, reach

PARTS = {  # axes of a block, and how titles show them
    "model": "{}",
    "recipient": "step {}",
    "layers": "layer {}",
    "mode": "{}",
    "donor_model": "of {}",
    "donor": "from step {}",
    "norm": "{} norm",
    "coefficient": "coefficient {:g}",
    "sae": "{}",
    "limit": "features {}",
}
BLOCK = list(PARTS)
NONE, RANDOM = "none", "random"
NO_CLAIM = "no claim"  # of a swap whose positive control has no effect
OTHERS = "others"  # random features are drawn from those outside the kind
KINDS = ("bi", "aligned", "mixed", "all", "stream")  # after the languages; numbered features come last
CONTROLS = ("", RANDOM, "shuffled", "self")
FAMILIES: dict[str, tuple[str, int, int, int]] = {  # column: name, which way is better, factor, digits
    "perplexity": ("PPL", -1, 1, 2),
    "comet": ("COMET", 1, 100, 1),
    "loss": ("loss", -1, 1, 3),
    "source_gain": ("source gain", 1, 1, 3),
    "contrast": ("contrast", 1, 1, 3),
    "contrast_shared": ("contrast shared", 1, 1, 3),
    "chrf": ("chrF", 1, 1, 2),
    "bleu": ("BLEU", 1, 1, 2),
}


@dataclass(frozen=True)
class Metric:
    """A metric of the table.

    Attributes:
        name: its column.
        family: the metric without language or direction, such as PPL.
        of: the language or direction.
        better: 1 if higher is better, else -1.
        factor, digits: values are shown times `factor`, with `digits` decimals.
        signature: how translations are scored (BLEU's tokenizer and so on); "" if unknown.
    """

    name: str
    family: str
    of: str
    better: int
    factor: int
    digits: int
    signature: str = ""

    @property
    def title(self) -> str:
        return f"{self.family} {self.of} {'↑' if self.better > 0 else '↓'}"


@dataclass(frozen=True, eq=False)
class Block:
    """Interventions that differ only in kind and control; `axes` are what they share.

    `rows`: none first, then each kind followed by its controls; the draws of `random` are one row (`combine`).
    `family`: the name that the LM shares with its other seeds, or its own.
    """

    axes: Mapping[str, Any]
    rows: pd.DataFrame
    family: str

    @property
    def title(self) -> str:
        return title(self.axes)


def metrics_of(table: pd.DataFrame, languages: Sequence[str]) -> list[Metric]:
    """The metrics that the table has values of, in the order they are shown."""
    codes = {language: _capital(language) for language in languages}
    directions = {f"{one}_{other}": f"{codes[one]}→{codes[other]}" for one, other in permutations(languages, 2)}
    metrics = []
    for column, (name, better, factor, digits) in FAMILIES.items():
        for end, of in ({**codes, "all": "all"} if column == "perplexity" else directions).items():
            if f"{column}_{end}" in table and table[f"{column}_{end}"].notna().any():
                signatures = table.get(f"{column}_{end}_signature", pd.Series(dtype=str)).dropna().unique()
                signature = " or ".join(signatures)
                metrics.append(Metric(f"{column}_{end}", name, of, better, factor, digits, signature))
    return metrics


def side_by_side(metrics: Sequence[Metric], width: int) -> list[list[Metric]]:
    """The metrics in parts of at most `width`, families kept whole; a larger family is a part of its own."""
    packs: list[list[Metric]] = []
    for family in dict.fromkeys(metric.family for metric in metrics):
        members = [metric for metric in metrics if metric.family == family]
        if packs and len(packs[-1]) + len(members) <= width:
            packs[-1] += members
        else:
            packs.append(members)
    return packs


def settled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each intervention once, and `sae` only where a layer has several ("" elsewhere).

    Draws of a random control from all features, made by earlier runs, are left out if there are draws from the features
    outside the kind.
    """
    several = table.groupby(["model", "donor_model", "donor", "layers"], dropna=False)["sae"].transform("nunique") > 1
    table = table.assign(sae=table["sae"].where(several, ""))
    apart = table["drawn_from"] == OTHERS
    some = apart.groupby([table[axis] for axis in (*BLOCK, "kind", "control")], dropna=False).transform("any")
    return table[apart | ~some].drop_duplicates([*BLOCK, "kind", "control", "seed"])


def combine(table: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The table with the draws of each random control as one row.

    Its values are means over draws; the interval of its change is where 95 % of such sets lie on the same texts, or for
    a single draw that draw's own interval. New columns: `draws`, how many, and `<metric>_draws`, the measured changes.
    """
    how: dict[str, Any] = {"features": "first", "change": "mean", "draws": "sum", "hash": tuple}
    how |= {"drawn_from": "first", "widening": "first"}
    for metric in metrics:
        change = f"{metric.name}_change"
        table = table.assign(**{f"{metric.name}_draws": table[change]})
        how |= {metric.name: "mean", change: "mean", f"{change}_low": "min", f"{change}_high": "max"}
        how[f"{metric.name}_draws"] = lambda draws: tuple(draws.dropna())
    groups = table.assign(draws=1).groupby([*BLOCK, "kind", "control"], dropna=False, sort=False)
    rows = groups.agg(how).reset_index()
    for number, row in rows[rows["control"] == RANDOM].iterrows():
        widening = row["widening"] if row["drawn_from"] == OTHERS else 1.0
        rows.loc[number, "widening"] = widening
        for name in (metric.name for metric in metrics):
            drawn = row[f"{name}_draws"]
            if len(drawn) > 1:
                far = reach(deviation(drawn), len(drawn), widening, 0.0)
                mean = row[f"{name}_change"]
                rows.loc[number, [f"{name}_change_low", f"{name}_change_high"]] = mean - far, mean + far
    return rows


def blocks(table: pd.DataFrame, metrics: Sequence[Metric], languages: Sequence[str]) -> list[Block]:
    """The blocks, in the order of the table."""
    rows = combine(table, metrics)
    family = table.get("family", table["model"]).astype(object).replace("", np.nan).fillna(table["model"])
    families = dict(zip(table["model"], family, strict=True))
    none = rows["kind"] == NONE
    made = []
    for key, block in rows[~none].groupby(BLOCK, dropna=False, sort=False):
        axes = dict(zip(BLOCK, key, strict=True))
        plain = rows[none & (rows["model"] == axes["model"]) & (rows["recipient"] == axes["recipient"])]
        both = pd.concat([plain.head(1), in_order(block, languages)], ignore_index=True)
        made.append(Block(axes, both, families[axes["model"]]))
    return made


def in_order(rows: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """The rows sorted by kind, then control."""
    order = [NONE, *languages, *KINDS, *CONTROLS]
    place = {value: number for number, value in enumerate(order)}
    return rows.sort_values(
        ["kind", "control"], kind="stable", key=lambda axis: axis.map(lambda value: place.get(value, len(place)))
    )


def title(axes: Mapping[str, Any]) -> str:
    """The axes as text; those without a value are left out."""
    known = {key: axes[key] for key in PARTS if key in axes and not pd.isna(axes[key]) and axes[key] != ""}
    return ", ".join(PARTS[key].format(value) for key, value in known.items())


def short(kind: str) -> str:
    """The short name of a kind in tables, as in the slides of Inaba et al."""
    if kind.startswith("ids:"):
        return f"features {kind.removeprefix('ids:').replace(',', ', ')}"
    return "–" if kind == NONE else _capital(kind)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]  # capitalize() would make zh-TW Zh-tw


def long(kind: str) -> str:
    """The name of a kind in figures of features, by which it gets its colour."""
    if kind.startswith("ids:"):
        return short(kind)
    return {**class_names([kind]), "bi": "bilingual", "mixed": "Mixed", "stream": "whole stream"}[kind]
