"""How a table of interventions is shown: its metrics, its blocks, and the rows of a block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import pandas as pd

from bisae.features.measures.language import class_names
from bisae.report.interventions.verdicts import deviation, reach

PARTS = {  # axes of a block, as titles say them
    "model": "{}",
    "recipient": "step {}",
    "layers": "layer {}",
    "mode": "{}",
    "donor": "from step {}",
    "norm": "{} norm",
    "coefficient": "coefficient {:g}",
    "sae": "{}",
    "limit": "features {}",
}
BLOCK = list(PARTS)
NONE, RANDOM = "none", "random"
OTHERS = "others"  # what random features are drawn from, where they are none of the kind's
KINDS = ("bi", "aligned", "mixed", "all")  # after the languages; ids come last
CONTROLS = ("", RANDOM, "shuffled", "self")
FAMILIES: dict[str, tuple[str, int, int, int]] = {  # column: name, which way is better, factor, digits
    "perplexity": ("PPL", -1, 1, 2),
    "comet": ("COMET", 1, 100, 1),
    "loss": ("loss", -1, 1, 3),
    "source_gain": ("source gain", 1, 1, 3),
    "chrf": ("chrF", 1, 1, 2),
    "bleu": ("BLEU", 1, 1, 2),
}


@dataclass(frozen=True)
class Metric:
    """`name`: its column; `of`: the language or direction; `better`: 1 if higher is, else -1; shown times `factor`.

    `signature`: how translations are scored, BLEU's tokenizer among it; "" where that is not known.
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
    """Interventions that differ in kind and control only.

    `rows`: none first, then each kind with its controls below it, draws of `random` as one row (see `combine`).
    """

    axes: Mapping[str, Any]
    rows: pd.DataFrame

    @property
    def title(self) -> str:
        return title(self.axes)


def metrics_of(table: pd.DataFrame, languages: Sequence[str]) -> list[Metric]:
    """Those the table has values of, in the order they are shown."""
    codes = {language: _capital(language) for language in languages}
    directions = {f"{one}_{other}": f"{codes[one]}→{codes[other]}" for one, other in permutations(languages, 2)}
    found = []
    for column, about in FAMILIES.items():
        name, better, factor, digits = about
        for end, of in ({**codes, "all": "all"} if column == "perplexity" else directions).items():
            if f"{column}_{end}" in table and table[f"{column}_{end}"].notna().any():
                signatures = table.get(f"{column}_{end}_signature", pd.Series(dtype=str)).dropna().unique()
                signature = " or ".join(signatures)
                found.append(Metric(f"{column}_{end}", name, of, better, factor, digits, signature))
    return found


def side_by_side(metrics: Sequence[Metric], width: int) -> list[list[Metric]]:
    """The metrics in order, cut between families into parts of at most `width` (a larger family is one part)."""
    packs: list[list[Metric]] = []
    for family in dict.fromkeys(metric.family for metric in metrics):
        members = [metric for metric in metrics if metric.family == family]
        if packs and len(packs[-1]) + len(members) <= width:
            packs[-1] += members
        else:
            packs.append(members)
    return packs


def settled(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `sae` where a layer has several ("" elsewhere), each intervention once.

    Random draws of a kind are of one supply: those from all features, of former runs, are left out where there are
    some from the others.
    """
    several = table.groupby(["model", "donor", "layers"], dropna=False)["sae"].transform("nunique") > 1
    table = table.assign(sae=table["sae"].where(several, ""))
    apart = table["drawn_from"] == OTHERS
    some = apart.groupby([table[axis] for axis in (*BLOCK, "kind", "control")], dropna=False).transform("any")
    return table[apart | ~some].drop_duplicates([*BLOCK, "kind", "control", "seed"])


def combine(table: pd.DataFrame, metrics: Sequence[Metric]) -> pd.DataFrame:
    """The table with the draws of each `random` as one row: their mean, and as interval of the change where, on the
    same texts, 95 % of such sets lie. Of a single draw the interval is its own.

    `draws`: how many; `<metric>_draws`: the changes of those that were measured.
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
    """In the order of the table."""
    rows = combine(table, metrics)
    none = rows["kind"] == NONE
    made = []
    for key, block in rows[~none].groupby(BLOCK, dropna=False, sort=False):
        axes = dict(zip(BLOCK, key, strict=True))
        plain = rows[none & (rows["model"] == axes["model"]) & (rows["recipient"] == axes["recipient"])]
        both = pd.concat([plain.head(1), in_order(block, languages)], ignore_index=True)
        made.append(Block(axes, both))
    return made


def in_order(rows: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Sorted by kind, then control."""
    order = [NONE, *languages, *KINDS, *CONTROLS]
    place = {value: number for number, value in enumerate(order)}
    return rows.sort_values(
        ["kind", "control"], kind="stable", key=lambda axis: axis.map(lambda value: place.get(value, len(place)))
    )


def title(axes: Mapping[str, Any]) -> str:
    """What the axes say, those without a value left out."""
    known = {key: axes[key] for key in PARTS if key in axes and not pd.isna(axes[key]) and axes[key] != ""}
    return ", ".join(PARTS[key].format(value) for key, value in known.items())


def short(kind: str) -> str:
    """A kind as the slides name it."""
    if kind.startswith("ids:"):
        return f"features {kind.removeprefix('ids:').replace(',', ', ')}"
    return "–" if kind == NONE else _capital(kind)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]  # not zh-TW as Zh-tw


def long(kind: str) -> str:
    """A kind as figures of features name it, which gives it its colour."""
    if kind.startswith("ids:"):
        return short(kind)
    return {**class_names([kind]), "bi": "bilingual", "mixed": "Mixed"}[kind]
