"""The second table: what a kind of features is worth for using the source of a translation, and its translation loss.

A kind is ranked among its random features only where all features together, the positive control, change the metric.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bisae.intervention.kinds import ALL
from bisae.metrics.intervals import Samples
from bisae.report.interventions.blocks import NONE, RANDOM, Block, Metric, short
from bisae.report.interventions.lm_seeds import over_lm_seeds
from bisae.report.interventions.orderings import changes_of
from bisae.report.interventions.verdicts import against_random, beside_random
from bisae.report.markup import Piece, Table, number

FAMILIES = ("source gain", "loss")
UNRANKED = "not ranked"
SEEDS = {"value": "value", "change": "change", "less the random features'": "by"}  # columns over seeds of LMs, by head
ABOUT = (
    "Source gain: nats per reference token by which the sentence's own source beats another sentence's; loss: nats per "
    "reference token after its own source. First row: the plain LM; below, changes against it with 95 % intervals over "
    "examples. All: every living feature, the positive control. A kind's change is compared with that of as many "
    "random features: higher or lower, if outside the interval of the verdicts, over draws and examples; in brackets "
    "the place of the kind among itself and the draws, 1 the highest. Not ranked: the interval of All holds 0."
)


def source_gains(
    blocks: Sequence[Block], metrics: Sequence[Metric], samples: Samples
) -> tuple[pd.DataFrame, list[Table]]:
    """A row for each block, kind and metric; a table for each block, none without the positive control, then one over
    seeds of LMs.

    The columns after the block's axes: family, kind, features, metric, value (of the LM under the edit), `change`
    against the plain LM with `low` and `high`; of random features `random`, the mean change, and `draws`; `by`, the
    difference to it, with `by_low` and `by_high`, `rank` and `verdict`, which are empty for none and all.
    """
    shown = [metric for metric in metrics if metric.family in FAMILIES]
    shown.sort(key=lambda metric: FAMILIES.index(metric.family))
    rows, tables = [], []
    for block in blocks:
        if shown and ((block.rows["kind"] == ALL) & (block.rows["control"] == "")).any():
            of_block = list(_rows(block, shown, samples))
            rows += [{**block.axes, "family": block.family, **row} for row in of_block]
            tables.append(_table(block, pd.DataFrame(of_block), shown))
    tidy = pd.DataFrame(rows)
    return tidy, [*tables, *over_lm_seeds(tidy, SEEDS, "+.3f")]


def _rows(block: Block, metrics: Sequence[Metric], samples: Samples) -> Iterator[dict[str, Any]]:
    own = block.rows[block.rows["control"] == ""].set_index("kind")
    for kind, row in own.iterrows():
        for metric in metrics:
            change, low, high = (row[f"{metric.name}_change{end}"] for end in ("", "_low", "_high"))
            found = {"kind": kind, "features": row["features"], "metric": metric.name, "value": row[metric.name]}
            found |= {"change": change, "low": low, "high": high}
            all_low, all_high = (own.at[ALL, f"{metric.name}_change_{end}"] for end in ("low", "high"))
            if kind not in (NONE, ALL):
                found |= _ranked(block, str(kind), metric, samples, moved=bool(all_low > 0 or all_high < 0))
            yield found


def _ranked(block: Block, kind: str, metric: Metric, samples: Samples, moved: bool) -> dict[str, Any]:
    drawn = changes_of(block.rows, (kind, RANDOM), metric, samples)
    if not drawn:
        return {"verdict": UNRANKED if not moved else ""}
    (first,) = changes_of(block.rows, (kind, ""), metric, samples)
    control = block.rows[(block.rows["kind"] == kind) & (block.rows["control"] == RANDOM)].iloc[0]
    found = against_random(first, drawn, float(control["widening"]))
    low, high = sorted((metric.better * found.low, metric.better * found.high))
    rank = found.rank if metric.better > 0 else found.draws + 2 - found.rank
    known = {"random": metric.better * float(np.mean([draw.value for draw in drawn])), "draws": found.draws}
    known |= {"by": metric.better * found.by, "by_low": low, "by_high": high}
    if not moved:
        return {**known, "verdict": UNRANKED}
    return {**known, "rank": rank, "verdict": beside_random(low, high)}


def _table(block: Block, rows: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    cells = []
    for kind, group in rows.groupby("kind", sort=False):
        of_metric = group.set_index("metric")
        features = group["features"].iloc[0]
        texts = [short(str(kind)), "" if pd.isna(features) or kind == NONE else str(features)]
        texts += [_shown(of_metric.loc[metric.name]) for metric in metrics]
        cells.append([[Piece(text)] for text in texts])
    header = ["kind", "features", *(f"{metric.family} {metric.of}" for metric in metrics)]
    return Table(block.title, header, cells, [ABOUT])


def _shown(row: pd.Series) -> str:
    if pd.isna(row["change"]):
        return number(row["value"], ".3f")
    text = f"{number(row['change'])} ({number(row['low'])} to {number(row['high'])})"
    verdict = row.get("verdict")
    if not isinstance(verdict, str) or not verdict:
        return text
    if pd.isna(row.get("random", np.nan)):
        return f"{text}; {verdict}"
    place = f" ({row['rank']:.0f} of {row['draws'] + 1:.0f})" if pd.notna(row.get("rank", np.nan)) else ""
    return f"{text}; random {number(row['random'])}: {verdict}{place}"
