"""Whether the slides' orderings hold: Bi best of the kinds, a language helped most by its own features, controls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bisae.metrics.intervals import Samples
from bisae.report.interventions.blocks import NONE, RANDOM, Block, Metric, short
from bisae.report.interventions.verdicts import Change, Verdict, against, against_random
from bisae.report.markup import Piece, Table

Which = tuple[str, str]  # kind and control

ABOUT = (
    "By the difference on the same texts and its 95 % interval: yes if the first is better than all others, no if one "
    "of the others is better than the first, else undecided. Of random features the interval is over draws and texts: "
    "t(R - 1) sqrt(s^2 (w + 1/R) + v), where s^2 is the variance over the R draws and v that of the difference over "
    "texts; w is 1 where features are drawn from all, and more where they are drawn from those that are not of the "
    "kind, since such draws resemble each other. Behind it the kind's place among itself and the draws, 1 the best."
)


def orderings(
    blocks: Sequence[Block], metrics: Sequence[Metric], languages: Sequence[str], samples: Samples
) -> pd.DataFrame:
    """A row a block, ordering and metric: the block's axes, its title, ordering, metric, holds (yes, no, undecided), by
    how much the first is better than the best other, in the metric's unit, and the interval of that.

    Against random draws also: how many, from which features (`drawn_from`, with its `widening`), their standard
    deviation `s`, and the `rank` of the kind among itself and them.
    """
    rows = []
    for block in blocks:
        for ordering, first, others, metric in _claims(block, metrics, languages):
            found = [_verdict(block.rows, first, other, metric, samples) for other in others]
            known = [verdict for verdict in found if verdict is not None]
            if len(known) < len(others):
                continue
            holds = "undecided"
            if all(verdict.holds == "yes" for verdict in known):
                holds = "yes"
            elif any(verdict.holds == "no" for verdict in known):
                holds = "no"
            best = min(known, key=lambda verdict: verdict.by)
            about: dict[str, Any] = {"block": block.title, "ordering": ordering, "metric": metric.name, "holds": holds}
            about |= {"by": best.by, "low": best.low, "high": best.high}
            if best.draws:
                control = _row(block.rows, *others[0])
                about |= {"draws": best.draws, "s": best.s, "rank": best.rank}
                about |= {"drawn_from": control["drawn_from"] or "all", "widening": control["widening"]}
            rows.append(dict(block.axes) | about)
    return pd.DataFrame(rows).astype({"draws": "Int64", "rank": "Int64"} if any("draws" in row for row in rows) else {})


def orderings_tables(found: pd.DataFrame, metrics: Sequence[Metric]) -> list[Table]:
    """A table an ordering: a row a block, a column a metric."""
    tables, titles = [], {metric.name: metric.title for metric in metrics}
    for ordering, rows in found.groupby("ordering", sort=False) if len(found) else ():
        shown = rows.assign(shown=[_shown(row) for row in rows.to_dict("records")])
        grid = shown.pivot(index="block", columns="metric", values="shown").fillna("")
        grid = grid.loc[rows["block"].unique(), rows["metric"].unique()]
        cells = [[[Piece(text)] for text in (block, *holds)] for block, *holds in grid.itertuples()]
        header = ["intervention", *(titles[name] for name in grid.columns)]
        tables.append(Table(str(ordering), header, cells, [ABOUT]))
    return tables


def _shown(row: Mapping[str, Any]) -> str:
    ranked = "rank" in row and pd.notna(row["rank"])
    return f"{row['holds']} ({row['rank']} of {row['draws'] + 1})" if ranked else str(row["holds"])


def _claims(
    block: Block, metrics: Sequence[Metric], languages: Sequence[str]
) -> Iterator[tuple[str, Which, list[Which], Metric]]:
    """Each ordering that can be asked of the block, with what is compared: the first against the others."""
    kinds = [kind for kind in languages if (block.rows["kind"] == kind).any()]
    controls = block.rows.loc[block.rows["control"] != "", ["kind", "control"]].itertuples(index=False)
    asked: list[tuple[str, Which, list[Which], str]] = [
        (f"Bi is the best of {', '.join(map(short, [*kinds, 'bi']))}", ("bi", ""), [(kind, "") for kind in kinds], ""),
        ("Bi is better than –", ("bi", ""), [(NONE, "")], ""),
    ]
    asked += [
        (f"{short(kind)} is better than its control {control}", (kind, ""), [(kind, control)], "")
        for kind, control in controls
        if kind == "bi" or control == RANDOM
    ]
    for kind in kinds:
        others = [(other, "") for other in kinds if other != kind]
        name = f"{short(kind)} helps {short(kind)} more than {' or '.join(short(other) for other, _ in others)} does"
        asked.append((name, (kind, ""), others, f"perplexity_{kind}"))
    for name, first, others, only in asked:
        yield from ((name, first, others, metric) for metric in metrics if others and only in ("", metric.name))


def _verdict(rows: pd.DataFrame, first: Which, other: Which, metric: Metric, samples: Samples) -> Verdict | None:
    """None where one of them is not there, or has no value."""
    one, others = (_changes(rows, which, metric, samples) for which in (first, other))
    if not (one and others):
        return None
    if other[1] == RANDOM:
        return against_random(one[0], others, float(_row(rows, *other)["widening"]))
    return against(one[0], others[0])


def _row(rows: pd.DataFrame, kind: str, control: str) -> pd.Series:
    return rows[(rows["kind"] == kind) & (rows["control"] == control)].iloc[0]


def _changes(rows: pd.DataFrame, which: Which, metric: Metric, samples: Samples) -> list[Change]:
    """Of each draw, where it is a random control; of none it is none."""
    if which[0] == NONE:
        return [Change(0.0, np.zeros(1))]
    if rows[(rows["kind"] == which[0]) & (rows["control"] == which[1])].empty:
        return []
    row = _row(rows, *which)
    resampled = (samples.get(name, {}).get(metric.name) for name in row["hash"])
    drawn = [one for one in resampled if one is not None] or [np.full(1, np.nan)] * len(row[f"{metric.name}_draws"])
    values = row[f"{metric.name}_draws"]
    return [Change(metric.better * value, metric.better * one) for value, one in zip(values, drawn, strict=True)]
