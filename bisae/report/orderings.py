"""Whether the slides' orderings hold: Bi best of the kinds, a language helped most by its own features, controls."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bisae.metrics.intervals import Interval, Samples, percentiles
from bisae.report.intervention_blocks import NONE, Block, Metric, short
from bisae.report.markup import Piece, Table

ABOUT = (
    "By the difference to each other on the same texts and its 95 % interval (of random: the mean over draws): yes if "
    "the first is better than all others, no if one of the others is better than the first, else undecided."
)


class Change(NamedTuple):
    """Against none, turned so that higher is better; `samples`: in each resample of the texts."""

    value: float
    samples: np.ndarray

    def less(self, other: "Change") -> Interval:
        """The interval of the difference; unknown where no resamples are known."""
        return percentiles(np.atleast_1d(self.samples - other.samples))


def orderings(
    blocks: Sequence[Block], metrics: Sequence[Metric], languages: Sequence[str], samples: Samples
) -> pd.DataFrame:
    """A row a block, ordering and metric: the block's axes, its title, ordering, metric, holds (yes, no, undecided) and
    by how much the first is better than the best other, in the metric's unit."""
    rows = []
    for block in blocks:
        for ordering, first, others, metric in _claims(block, metrics, languages, samples):
            apart = [first.less(other) for other in others]
            holds = "undecided"
            if all(low > 0 for low, _ in apart):
                holds = "yes"
            elif any(high < 0 for _, high in apart):
                holds = "no"
            by = first.value - max(other.value for other in others)
            about = {"block": block.title, "ordering": ordering, "metric": metric.name}
            rows.append(dict(block.axes) | about | {"holds": holds, "by": by})
    return pd.DataFrame(rows)


def orderings_tables(found: pd.DataFrame, metrics: Sequence[Metric]) -> list[Table]:
    """A table an ordering: a row a block, a column a metric."""
    tables, titles = [], {metric.name: metric.title for metric in metrics}
    for ordering, rows in found.groupby("ordering", sort=False) if len(found) else ():
        grid = rows.pivot(index="block", columns="metric", values="holds").fillna("")
        grid = grid.loc[rows["block"].unique(), rows["metric"].unique()]
        cells = [[[Piece(text)] for text in (block, *holds)] for block, *holds in grid.itertuples()]
        header = ["intervention", *(titles[name] for name in grid.columns)]
        tables.append(Table(str(ordering), header, cells, [ABOUT]))
    return tables


def _claims(
    block: Block, metrics: Sequence[Metric], languages: Sequence[str], samples: Samples
) -> Iterator[tuple[str, Change, list[Change], Metric]]:
    """Each ordering that can be asked of the block, with what is compared: the first against the others."""
    kinds = [kind for kind in languages if (block.rows["kind"] == kind).any()]
    bi = [("bi", control) for control in block.rows.loc[block.rows["kind"] == "bi", "control"] if control]
    asked = [
        (f"Bi is the best of {', '.join(map(short, [*kinds, 'bi']))}", ("bi", ""), [(kind, "") for kind in kinds], "")
    ]
    asked += [("Bi is better than –", ("bi", ""), [(NONE, "")], "")]
    asked += [(f"Bi is better than its control {control}", ("bi", ""), [("bi", control)], "") for _, control in bi]
    for kind in kinds:
        others = [(other, "") for other in kinds if other != kind]
        name = f"{short(kind)} helps {short(kind)} more than {' or '.join(short(other) for other, _ in others)} does"
        asked.append((name, (kind, ""), others, f"perplexity_{kind}"))
    for name, first, others, only in asked:
        for metric in metrics:
            if only not in ("", metric.name):
                continue
            changes = [_change(block.rows, *which, metric, samples) for which in (first, *others)]
            known = [change for change in changes if change is not None]
            if others and len(known) == len(changes):
                yield name, known[0], known[1:], metric


def _change(rows: pd.DataFrame, kind: str, control: str, metric: Metric, samples: Samples) -> Change | None:
    """None where there is no such row, or it has no value."""
    if kind == NONE:
        return Change(0.0, np.zeros(1))
    found = rows[(rows["kind"] == kind) & (rows["control"] == control)]
    if found.empty or pd.isna(found[f"{metric.name}_change"].iloc[0]):
        return None
    drawn = [samples.get(name, {}).get(metric.name, np.full(1, np.nan)) for name in found["hash"].iloc[0]]
    return Change(float(found[f"{metric.name}_change"].iloc[0]) * metric.better, metric.better * np.mean(drawn, axis=0))
