"""Languages against languages: what each language loses, in nats per token, without the features of each language.

The specificity of language A's features against language B is dCE_A - dCE_B, the rise of the cross-entropy on text of
A minus that on text of B, minus the mean of the same difference under random sets of as many, as active features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bisae.metrics import NATS
from bisae.metrics.intervals import Samples
from bisae.report.interventions.blocks import NONE, RANDOM, Block, Metric, blocks, short
from bisae.report.interventions.lm_seeds import over_lm_seeds
from bisae.report.interventions.orderings import changes_of
from bisae.report.interventions.verdicts import Change, against_random, beside_random
from bisae.report.markup import Piece, Table, number

ABLATE = "ablate"
SPECIFIC, REVERSE = "specific", "reverse"
SEEDS = {name: name for name in ("change", "random", "specificity")}  # columns over seeds of LMs
ABOUT = (
    "Features of each kind taken out: rise of the cross-entropy on text of each language, nats per token, with 95 % "
    "intervals over documents, and its mean over random sets of as many, as active features. Size: mean length of "
    "what is taken out over that of the stream; as strong are random sets whose size is alike. Specificity of a "
    "language's features: the rise on its own text minus that on the other languages' (their mean), minus the mean of "
    "the same difference under random sets; its interval is over draws and documents, as in the orderings. Specific: "
    "the interval is above 0; reverse: below 0; else as random. In brackets the place among itself and the draws."
)


def language_matrix(
    table: pd.DataFrame, languages: Sequence[str], samples: Samples
) -> tuple[pd.DataFrame, list[Table]]:
    """A row for each block of `mode=ablate`, kind and language of text; a table for each block, then one over seeds of
    LMs.

    Args:
        table: the settled table of interventions.
        languages: codes, in the order they are shown; those without a cross-entropy in the table are left out.
        samples: the changes of each metric in each resample, by the row's hash.

    Returns:
        The columns after the block's axes: family, kind, features, size and random_size (mean ||new - old|| / ||old||),
        text (a language), change (dCE, nats per token) with low and high, and random, its mean over the draws. In rows
        of a language's own features also specificity with specificity_low and specificity_high, against that language
        of the text, or in the row of the own text against the mean of all others; draws, rank and verdict. Nothing
        unless the features of a language were taken out and two languages were read.
    """
    metrics = [
        Metric(f"{NATS}_{code}", "nats", code, 1, 1, 3)
        for code in languages
        if f"{NATS}_{code}" in table and table[f"{NATS}_{code}"].notna().any()
    ]
    rows, tables = [], []
    for block in blocks(table, metrics, languages) if len(metrics) > 1 else ():
        own = block.rows.loc[block.rows["control"] == "", "kind"]
        if block.axes["mode"] == ABLATE and own.isin([metric.of for metric in metrics]).any():
            of_block = [row for kind in own[own != NONE] for row in _rows(block, kind, metrics, samples)]
            rows += [{**block.axes, "family": block.family, **row} for row in of_block]
            tables.append(_table(block, pd.DataFrame(of_block), metrics))
    tidy = pd.DataFrame(rows)
    by_text = tidy.assign(metric="nats " + tidy["text"].map(short)) if rows else tidy
    return tidy, [*tables, *over_lm_seeds(by_text, SEEDS, "+.3f")]


def _rows(block: Block, kind: str, metrics: Sequence[Metric], samples: Samples) -> Iterator[dict[str, Any]]:
    of_kind = block.rows[block.rows["kind"] == kind].set_index("control")
    row, control = of_kind.loc[""], of_kind.loc[RANDOM] if RANDOM in of_kind.index else None
    changes = {m.of: changes_of(block.rows, (kind, ""), m, samples) for m in metrics}
    drawn = {m.of: changes_of(block.rows, (kind, RANDOM), m, samples) for m in metrics}
    for metric in metrics:
        found = {"kind": kind, "features": row["features"], "size": row["change"], "text": metric.of}
        found["random_size"] = np.nan if control is None else control["change"]
        found |= {end or "change": row[f"{metric.name}_change{end and '_' + end}"] for end in ("", "low", "high")}
        found["random"] = np.mean([draw.value for draw in drawn[metric.of]]) if drawn[metric.of] else np.nan
        if control is not None and kind in changes and drawn[kind]:
            others = [metric.of] if metric.of != kind else [code for code in changes if code != kind]
            first = _contrast(changes, kind, others, 0)
            against = [_contrast(drawn, kind, others, draw) for draw in range(len(drawn[kind]))]
            verdict = against_random(first, against, float(control["widening"]))
            said = beside_random(verdict.low, verdict.high, SPECIFIC, REVERSE)
            found |= {"specificity": verdict.by, "specificity_low": verdict.low, "specificity_high": verdict.high}
            found |= {"draws": verdict.draws, "rank": verdict.rank, "verdict": said}
        yield found


def _contrast(changes: dict[str, list[Change]], kind: str, others: Sequence[str], draw: int) -> Change:
    """dCE of `kind`'s language minus the mean of dCE of the others."""
    own, rest = changes[kind][draw], [changes[code][draw] for code in others]
    value = own.value - float(np.mean([change.value for change in rest]))
    return Change(value, own.samples - np.mean([change.samples for change in rest], axis=0))


def _table(block: Block, rows: pd.DataFrame, metrics: Sequence[Metric]) -> Table:
    cells = []
    for kind, group in rows.groupby("kind", sort=False):
        of_text, first = group.set_index("text"), group.iloc[0]
        texts = [short(str(kind)), str(first["features"]), f"{first['size']:.3f}"]
        texts[-1] += "" if pd.isna(first["random_size"]) else f"; random {first['random_size']:.3f}"
        texts += [_shown(of_text.loc[metric.of]) for metric in metrics]
        cells.append(
            [[Piece(text)] for text in (*texts, _specific(of_text.loc[kind]) if kind in of_text.index else "")]
        )
    header = ["taken out", "features", "size", *(f"nats {short(metric.of)}" for metric in metrics), "specificity"]
    return Table(f"{block.title}: languages against languages", header, cells, [ABOUT])


def _shown(row: pd.Series) -> str:
    text = f"{number(row['change'])} ({number(row['low'])} to {number(row['high'])})"
    return text if pd.isna(row["random"]) else f"{text}; random {number(row['random'])}"


def _specific(row: pd.Series) -> str:
    if pd.isna(row.get("specificity", np.nan)):
        return ""
    text = number(row["specificity"])
    if pd.notna(row["specificity_low"]):
        text += f" ({number(row['specificity_low'])} to {number(row['specificity_high'])})"
    return f"{text}: {row['verdict']} ({row['rank']:.0f} of {row['draws'] + 1:.0f})"
