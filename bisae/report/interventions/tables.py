"""Tables of interventions: one as on the slides, and one with controls, changes and intervals."""

from collections.abc import Sequence

import pandas as pd

from bisae.report.interventions.blocks import NONE, RANDOM, Block, Metric, short, side_by_side
from bisae.report.markup import Piece, Table, number

ABOUT = (
    "In brackets the change against – (nothing done to the same checkpoint) with its 95 % interval, paired, over "
    "documents (PPL) or examples. Marked: the best of the kinds, controls apart, where it is better than – and its "
    "interval excludes 0. Random: as many features, as active and added as strongly, of those that are not of the "
    "kind (others) or of all; mean over draws and where 95 % of such sets lie on the same texts, of 1 draw its own "
    "interval; shuffled: the codes of another sentence; self: the recipient's own features. Size: mean length of the "
    "change over that of the stream."
)
SLIDES = "Add: the kind of the features; –: nothing done."
WIDTH = 3  # metrics beside each other in a table with intervals


def interventions_tables(block: Block, metrics: Sequence[Metric]) -> list[Table]:
    """The block with controls, changes and intervals; several tables if not all metrics fit into one."""
    rows = block.rows
    labels = [[[Piece(text)] for text in (_label(row), *_amount(row))] for _, row in rows.iterrows()]
    tables, foot = [], [ABOUT, *_scored(metrics)]  # Markdown shows the foot below the last table only
    for pack in side_by_side(metrics, WIDTH):
        best = {metric.name: _best(rows, metric) for metric in pack}
        cells = [
            [*label, *([_cell(row, metric, bool(best[metric.name][number]))] for metric in pack)]
            for number, (label, (_, row)) in enumerate(zip(labels, rows.iterrows(), strict=True))
        ]
        families = ", ".join(dict.fromkeys(metric.family for metric in pack))
        tables.append(
            Table(f"{block.title}: {families}", ["kind", "features", "size", *(m.title for m in pack)], cells, foot)
        )
    return tables


def slides_table(block: Block, metrics: Sequence[Metric], languages: Sequence[str]) -> Table:
    """The table of the slides: values of none, the languages and Bi, for perplexity and metrics that fit beside it."""
    shown = side_by_side(metrics, 5)[0]
    rows = block.rows[block.rows["kind"].isin([NONE, *languages, "bi"]) & (block.rows["control"] == "")]
    cells = [[[Piece(short(row["kind"]))], *([Piece(_value(row, m))] for m in shown)] for _, row in rows.iterrows()]
    return Table(block.title, ["Add", *(metric.title for metric in shown)], cells, [SLIDES, *_scored(shown)])


def _scored(metrics: Sequence[Metric]) -> list[str]:
    """One line for each way translations are scored, such as the tokenizer of BLEU for a language."""
    ways: dict[str, list[str]] = {}
    for metric in metrics:
        if metric.signature:
            ways.setdefault(metric.signature, []).append(f"{metric.family} {metric.of}")
    return [f"{', '.join(names)}: {signature}." for signature, names in ways.items()]


def _label(row: pd.Series) -> str:
    if not row["control"]:
        return short(row["kind"])
    draws = f", {row['draws']} draws of {row['drawn_from'] or 'all'}" if row["control"] == RANDOM else ""
    return f"{row['control']} (as {short(row['kind'])}){draws}"


def _amount(row: pd.Series) -> tuple[str, str]:
    if row["kind"] == NONE or pd.isna(row["features"]):
        return "", ""
    return str(row["features"]), "" if pd.isna(row["change"]) else f"{row['change']:.3f}"


def _best(rows: pd.DataFrame, metric: Metric) -> "pd.Series[bool]":
    """True for the kind that is marked as best: better than none with an interval that excludes 0; several if equal."""
    value = metric.better * rows[metric.name].where((rows["kind"] != NONE) & (rows["control"] == ""))
    ends = metric.better * rows[[f"{metric.name}_change_low", f"{metric.name}_change_high"]]
    return (value == value.max()) & (ends > 0).all(axis=1)


def _cell(row: pd.Series, metric: Metric, best: bool) -> Piece:
    change, low, high = (row[f"{metric.name}_change{end}"] for end in ("", "_low", "_high"))
    text = _value(row, metric)
    if pd.notna(change):
        interval = "" if pd.isna(low) else f"; {_signed(low, metric)} to {_signed(high, metric)}"
        fewer = f"; {count} draw" if (count := len(row[f"{metric.name}_draws"])) == 1 < row["draws"] else ""
        text += f" ({_signed(change, metric)}{interval}{fewer})"
    return Piece(text, "peak" if best else "")


def _value(row: pd.Series, metric: Metric) -> str:
    value = row[metric.name]
    return "" if pd.isna(value) else number(metric.factor * value, f".{metric.digits}f")


def _signed(value: float, metric: Metric) -> str:
    return number(metric.factor * value, f"+.{metric.digits}f")
