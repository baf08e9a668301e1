"""Tests of the slides' orderings: Bi is the best kind, each language's features help it most, kinds beat controls."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bisae.metrics.intervals import Samples
from bisae.report.interventions.blocks import NONE, RANDOM, Block, Metric, short
from bisae.report.interventions.verdicts import UNDECIDED, Change, Verdict, against, against_random
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
    """Test every ordering in every block by every metric.

    Returns:
        One row for each test: the block's axes and title, `ordering`, `metric`, `holds` (yes, no or undecided), `by`
        how much the first is better than the best other, in the metric's unit, and that difference's interval `low`
        to `high`. Against random draws also how many `draws`, `drawn_from` which features, with its `widening`, their
        standard deviation `s`, and the `rank` of the kind among itself and the draws.
    """
    rows = []
    for block in blocks:
        for ordering, first, others, metric in _claims(block, metrics, languages):
            verdicts = [_verdict(block.rows, first, other, metric, samples) for other in others]
            known = [verdict for verdict in verdicts if verdict is not None]
            if len(known) < len(others):
                continue
            holds = UNDECIDED
            if all(verdict.holds == "yes" for verdict in known):
                holds = "yes"
            elif any(verdict.holds == "no" for verdict in known):
                holds = "no"
            best = min(known, key=lambda verdict: verdict.by)
            row: dict[str, Any] = {"block": block.title, "ordering": ordering, "metric": metric.name, "holds": holds}
            row |= {"by": best.by, "low": best.low, "high": best.high}
            if best.draws:
                control = _row(block.rows, *others[0])
                row |= {"draws": best.draws, "s": best.s, "rank": best.rank}
                row |= {"drawn_from": control["drawn_from"] or "all", "widening": control["widening"]}
            rows.append(dict(block.axes) | row)
    return pd.DataFrame(rows).astype({"draws": "Int64", "rank": "Int64"} if any("draws" in row for row in rows) else {})


def orderings_tables(found: pd.DataFrame, metrics: Sequence[Metric]) -> list[Table]:
    """One table for each ordering, with a row for each block and a column for each metric."""
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
    """The orderings that the block can test: name, first, the others it is compared with, and metric."""
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
    """`first` against `other`; None if the block lacks one of them or its value."""
    changes, others = (changes_of(rows, which, metric, samples) for which in (first, other))
    if not (changes and others):
        return None
    if other[1] == RANDOM:
        return against_random(changes[0], others, float(_row(rows, *other)["widening"]))
    return against(changes[0], others[0])


def _row(rows: pd.DataFrame, kind: str, control: str) -> pd.Series:
    return rows[(rows["kind"] == kind) & (rows["control"] == control)].iloc[0]


def changes_of(rows: pd.DataFrame, which: Which, metric: Metric, samples: Samples) -> list[Change]:
    """The changes of a kind and control: one for each draw if random; 0 for none; [] if the block lacks it."""
    if which[0] == NONE:
        return [Change(0.0, np.zeros(1))]
    if rows[(rows["kind"] == which[0]) & (rows["control"] == which[1])].empty:
        return []
    row = _row(rows, *which)
    resampled = (samples.get(name, {}).get(metric.name) for name in row["hash"])
    drawn = [sample for sample in resampled if sample is not None] or [np.full(1, np.nan)] * len(
        row[f"{metric.name}_draws"]
    )
    values = row[f"{metric.name}_draws"]
    return [Change(metric.better * value, metric.better * sample) for value, sample in zip(values, drawn, strict=True)]
