"""The paper's tables: phases of training, parts of the depth, sizes, example features."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from bisae.report.averages import OVER, averages, metrics_of
from bisae.report.bins import LAYERS, PHASES, RANDOM, SIZES, Bins
from bisae.report.examples import Examples, example_features
from bisae.report.languages import agreements
from bisae.report.lm_seeds import over_lm_seeds
from bisae.report.markup import Piece, Table, latex, markdown
from bisae.report.trust import claims
from bisae.runtime.atomic import write_text

log = logging.getLogger(__name__)

SHOWN = ("Mixed", "monosemanticity", "bilingual", "aligned", "aligned_30", "aligned_40", "contextual", "alive")
TITLES = {
    "phases": "Phases of the LM's training, all layers",
    "layers": "Parts of the depth, final checkpoint",
    "sizes": "Sizes of LM, final checkpoint, middle layers",
}
ABOUT = (
    "Means over the cells of the row. Shares are of alive features; Mixed by top contexts; monosemanticity without "
    "single-token features; aligned_30, aligned_40: aligned, and with a correlation of at least .3, .4. Shuffled: the "
    "same under shuffled language labels, clusters or sentence pairs."
)


def write_tables(
    cells: pd.DataFrame,
    read: Callable[[str, str], pd.DataFrame],
    bins: Bins,
    intervals: Sequence[str],
    examples: Examples,
    folder: Path,
) -> list[Path]:
    """Write phases, layers, sizes, languages and examples as .csv (every metric, tidy), .md and .tex into `folder`.

    `read(folder, name)` gives a cell's table `name`: features, contexts or sequences. `intervals`: the kinds of
    interval to print, keys of `averages.OVER`. A table without rows (sizes, if all LMs are equally large) is left out,
    and so are `trust` without baselines or SAE seeds, and `lm_seeds` without several seeds of an LM.
    """
    labelled = bins.label(cells)
    written = []
    for name, view in _views(labelled).items():
        if view.empty:
            log.info("no table of %s: nothing to compare", name)
            continue
        by = ["setting", "LM", "SAE", name]
        numbers = averages(view.sort_values(["setting", "control", "parameters", *by]), by, metrics_of(cells))
        written += _write(folder, name, numbers, _table(numbers, TITLES[name], by, intervals, bins.rule(name)))
    if (found := claims(labelled)) is not None:
        written += _write(folder, "trust", *found)
    if (seeds := over_lm_seeds(labelled)) is not None:
        written += _write(folder, "lm_seeds", *seeds)
    written += _write(folder, "languages", *agreements(labelled, read))
    return written + _write(folder, "examples", *example_features(labelled, read, examples))


def _views(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The cells of each table, with the columns `LM` and the bin, which is named like the table."""
    random = (cells["step"] == 0).map({True: f", {RANDOM}", False: ""})
    control = cells["control"].map({True: " (control)", False: ""})
    kind = cells["control"].map({True: "control", False: "trained"})
    ended = cells["final"] | (cells["step"] == 0)
    middle = ended & (cells["part"] == LAYERS[1]) & (cells["size"] != "")
    return {
        name: cells[rows].assign(**{"LM": lm[rows], name: pd.Categorical(cells[bins][rows], order)})
        for name, rows, lm, bins, order in (
            ("phases", cells["step"] >= 0, cells["lm"] + control, "phase", (RANDOM, *PHASES)),
            ("layers", ended, cells["lm"] + control + random, "part", LAYERS),
            ("sizes", middle, kind + random, "size", SIZES),
        )
    }


def _table(numbers: pd.DataFrame, title: str, by: Sequence[str], intervals: Sequence[str], rule: str) -> Table:
    """The table to print: the metrics in SHOWN, each with a column of shuffled values if it has any."""
    kinds = [kind for kind in intervals if numbers[f"{kind}_low"].notna().any()]
    shown = [key for key in by if key not in ("setting", "SAE") or numbers[key].nunique() > 1]
    known = numbers.groupby("metric")[["value", "null"]].count()
    metrics = [metric for metric in SHOWN if metric in known.index and known.at[metric, "value"]]
    columns = [(metric, column) for metric in metrics for column in ("value", "null") if known.at[metric, column]]
    rows = []
    for key, group in numbers.groupby(list(by), sort=False):
        found = group.set_index("metric").reindex(metrics)
        labels = [label for name, label in zip(by, key, strict=True) if name in shown]
        values = [_number(found.loc[metric], column, kinds) for metric, column in columns]
        rows.append([*([Piece(str(label))] for label in [*labels, group["cells"].max()]), *values])
    header = [*shown, "cells", *(metric if column == "value" else "shuffled" for metric, column in columns)]
    foot = [f"{kind[0]}: 95 % interval over {OVER[kind]}." for kind in kinds]
    return Table(title, header, rows, [f"{ABOUT} {rule}", *foot])


def _number(row: pd.Series, column: str, kinds: Sequence[str]) -> list[Piece]:
    """A mean with its known intervals. The first letter of its kind is raised beside each interval."""
    form = "{:.0f}" if row.name == "alive" else "{:.3f}"
    if pd.isna(row[column]):
        return [Piece("–")]
    found = [Piece(form.format(row[column]))]
    for kind in kinds if column == "value" else ():
        low, high = row[f"{kind}_low"], row[f"{kind}_high"]
        if pd.notna(low):
            found += [Piece(f" ({form.format(low)}, {form.format(high)})"), Piece(kind[0], "raised")]
    return found


def _write(folder: Path, name: str, numbers: pd.DataFrame, table: Table) -> list[Path]:
    paths = [folder / f"{name}.{ending}" for ending in ("csv", "md", "tex")]
    for path, text in zip(paths, (numbers.to_csv(index=False), markdown(table), latex(table)), strict=True):
        write_text(path, text)
    return paths
