"""Concept swaps as a table and as curves: each kind's effect as a share of the effect of the whole stream.

No share is given where the interval of the whole stream's effect, the positive control, holds 0.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bisae.intervention.kinds import ALL, STREAM
from bisae.intervention.specs import SWAP
from bisae.metrics.intervals import Samples, percentiles
from bisae.report.figures_panels import Picture
from bisae.report.interventions.blocks import NO_CLAIM, NONE, PARTS, RANDOM, Block, Metric, long, short
from bisae.report.interventions.lm_seeds import over_lm_seeds
from bisae.report.interventions.orderings import changes_of
from bisae.report.interventions.verdicts import Change, against_random, beside_random
from bisae.report.markup import Piece, Table, number

NAMES = ("contrast", "contrast shared")  # families of metrics
SEEDS = {"share": "share", "less the random features'": "by"}  # columns over seeds of LMs, by head
ABOUT = (
    "A word is swapped for another where it stands. Stream: effect of the whole stream, in nats: the change of "
    "log p(the other word's translation) - log p(the word's), where the translation is predicted. Kinds: effect as a "
    "share of it. In brackets 95 % over pairs of words. Random: mean share of as many features, whose change is as "
    "long; higher or lower, if the kind's share lies outside the interval of the verdicts, over draws and pairs. No "
    "claim: the interval of the stream's effect holds 0. Contrast shared: words that could be mistaken for their "
    "translation."
)
NOTE = (
    "Bands: 95 % over pairs of words. Dashed: as many random features, with a change as long, mean of the draws. No "
    "point: the whole stream has no effect."
)
OVER = {"recipient": ("LM training step", "step"), "layers": ("layer", "linear")}


def swap_shares(
    blocks: Sequence[Block], metrics: Sequence[Metric], samples: Samples
) -> tuple[pd.DataFrame, list[Table]]:
    """A row for each block of `mode=swap`, kind and metric; a table for each block, then one over seeds of LMs.

    The columns after the block's axes: family, kind, features, living (features of all), metric, of (direction),
    `effect` with `low` and `high`; `share`, with `share_low` and `share_high`, NaN where nothing can be said; of random
    features `random`, the mean share, and `draws`; `by`, the difference to it, with `by_low` and `by_high`; verdict.
    """
    shown = [metric for metric in metrics if metric.family in NAMES]
    rows, tables = [], []
    for block in (block for block in blocks if block.axes["mode"] == SWAP):
        of_block = list(_rows(block, shown, samples))
        rows += [{**block.axes, "family": block.family, **row} for row in of_block]
        tables.append(_table(block, pd.DataFrame(of_block), shown))
    tidy = pd.DataFrame(rows)
    return tidy, [*tables, *over_lm_seeds(tidy, SEEDS, ".2f")]


def _rows(block: Block, metrics: Sequence[Metric], samples: Samples) -> Iterator[dict[str, Any]]:
    own = block.rows[(block.rows["control"] == "") & (block.rows["kind"] != NONE)].set_index("kind")
    living = own["features"].get(ALL, np.nan)
    for metric in metrics:
        (stream,) = changes_of(block.rows, (STREAM, ""), metric, samples)
        acts = percentiles(stream.samples).low > 0
        for kind, row in own.iterrows():
            change, low, high = (row[f"{metric.name}_change{end}"] for end in ("", "_low", "_high"))
            found = {"kind": kind, "features": row["features"], "living": living, "metric": metric.name}
            found |= {"of": metric.of, "effect": change, "low": low, "high": high}
            if kind != STREAM:
                found |= _shared(block, str(kind), metric, samples, stream) if acts else {"verdict": NO_CLAIM}
            yield found


def _shared(block: Block, kind: str, metric: Metric, samples: Samples, stream: Change) -> dict[str, Any]:
    (mine,) = changes_of(block.rows, (kind, ""), metric, samples)
    share = _over(mine, stream)
    low, high = percentiles(share.samples)
    found: dict[str, Any] = {"share": share.value, "share_low": low, "share_high": high, "verdict": ""}
    if drawn := [_over(draw, stream) for draw in changes_of(block.rows, (kind, RANDOM), metric, samples)]:
        control = block.rows[(block.rows["kind"] == kind) & (block.rows["control"] == RANDOM)].iloc[0]
        verdict = against_random(share, drawn, float(control["widening"]))
        found |= {"random": float(np.mean([draw.value for draw in drawn])), "draws": len(drawn)}
        found |= {"by": verdict.by, "by_low": verdict.low, "by_high": verdict.high}
        found["verdict"] = beside_random(verdict.low, verdict.high)
    return found


def _over(change: Change, stream: Change) -> Change:
    return Change(change.value / stream.value, change.samples / stream.samples)


def _table(block: Block, rows: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    cells = []
    for kind, group in rows.groupby("kind", sort=False):
        of_metric = group.set_index("metric")
        features = "" if kind == STREAM else str(group["features"].iloc[0])
        texts = [short(str(kind)), features, *(_shown(of_metric.loc[metric.name]) for metric in metrics)]
        cells.append([[Piece(text)] for text in texts])
    header = ["kind", "features", *(f"{metric.family} {metric.of}" for metric in metrics)]
    return Table(block.title, header, cells, [ABOUT])


def _shown(row: pd.Series) -> str:
    if row["kind"] == STREAM:
        return f"{number(row['effect'])} ({number(row['low'])} to {number(row['high'])}) nats"
    if row["verdict"] == NO_CLAIM:
        return NO_CLAIM
    share, low, high = (number(row[name], ".2f") for name in ("share", "share_low", "share_high"))
    text = f"{share} ({low} to {high})"
    return f"{text}; random {number(row['random'], '.2f')}: {row['verdict']}" if row["verdict"] else text


def swap_pictures(tidy: pd.DataFrame) -> Iterator[Picture]:
    """Curves over the steps of LMs, and over their layers at the last step: an LM and a direction in each panel."""
    if tidy.empty:
        return
    apart = tidy[tidy["metric"].str.fullmatch("contrast_(?!shared).*") & ~tidy["layers"].str.contains("+", regex=False)]
    last = apart["recipient"] == apart.groupby("model")["recipient"].transform("max")
    for over, (label, scale) in OVER.items():
        rows = apart if over == "recipient" else apart[last]
        if rows[over].nunique() > 1:
            points = _points(rows, rows[over].astype(float), by_layer=over == "recipient")
            yield Picture(f"swap_over_{over.rstrip('s')}", "Concept swap", NOTE, label, scale, points, "random")


def _points(rows: pd.DataFrame, x: pd.Series, by_layer: bool) -> pd.DataFrame:
    """Points for `draw_lines`: effects of the whole stream, shares of it, and the kinds' shares of features."""
    panel = rows["model"] + " " + rows["of"]
    for axis in ("donor", "sae", "limit"):  # else values of several would be one line
        several = rows.groupby([panel, "layers", "recipient"])[axis].transform("nunique") > 1
        panel = panel.mask(several, panel + ", " + PARTS[axis].format("") + rows[axis].astype(str))
    rows = rows.reindex(columns=dict.fromkeys([*rows, "share", "share_low", "share_high", "random"]))  # of no claim
    rows = rows.assign(x=x, line=rows["kind"].map(long), panel=panel, null=np.nan)
    layer = "\nlayer " + rows["layers"] if by_layer else ""
    stream, kinds = rows["kind"] == STREAM, ~rows["kind"].isin([STREAM, ALL])
    none = {"low": np.nan, "high": np.nan}
    ends = {"value": rows["share"], "low": rows["share_low"], "high": rows["share_high"]}
    features = rows["features"].astype(float) / rows["living"].astype(float)
    parts = [
        rows.assign(row="effect of the stream" + layer, dashed=False, value=rows["effect"])[stream],
        rows.assign(row="share of the effect" + layer, dashed=False, **ends)[~stream],
        rows.assign(row="share of the effect" + layer, dashed=True, value=rows["random"], **none)[kinds],
        rows.assign(row="share of features" + layer, dashed=False, value=features, **none)[kinds],
    ]
    columns = ["row", "panel", "line", "dashed", "x", "value", "low", "high", "null"]
    return pd.concat(parts)[columns].dropna(subset="value").sort_values("row", kind="stable")
