"""The report of interventions: tables, figures and generated texts, from the rows of interventions.parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bisae.intervention.specs import SWAP
from bisae.metrics.intervals import Samples
from bisae.report.figures_panels import draw_lines
from bisae.report.interventions.blocks import blocks, metrics_of, settled
from bisae.report.interventions.figures import draw_interventions, draw_seeds_of_lms, with_none
from bisae.report.interventions.figures_languages import draw_languages
from bisae.report.interventions.generations import generations_markdown, generations_page
from bisae.report.interventions.languages import language_matrix
from bisae.report.interventions.orderings import orderings, orderings_tables
from bisae.report.interventions.source_gain import source_gains
from bisae.report.interventions.swap import swap_pictures, swap_shares
from bisae.report.interventions.tables import interventions_tables, slides_table
from bisae.report.markup import Table, latex, markdown
from bisae.report.style import look, save
from bisae.report.written import forget
from bisae.runtime.atomic import write_text


def write_interventions(
    folder: Path,
    table: pd.DataFrame,
    samples: Samples,
    generations: Sequence[Mapping[str, Any]],
    languages: Sequence[str],
) -> dict[str, Path]:
    """Write tables/, figures/, generations.html and generations.md into `folder`.

    Args:
        table: one row for each intervention; all metrics are optional.
        samples: the changes of each metric in each resample, by the row's hash.
        generations: generated texts (`bisae.report.interventions.generations`); without any there is no page of them.
        languages: the codes in the columns' names, in the order they are shown.

    Returns:
        The .png of each figure by name.
    """
    table, metrics = settled(table), metrics_of(table, languages)
    shown = blocks(table, metrics, languages) if metrics else []
    tables = folder / "tables"
    texts = _texts(tables / "interventions", [part for block in shown for part in interventions_tables(block, metrics)])
    shares, share_tables = swap_shares(shown, metrics, samples)
    if share_tables:
        texts |= _texts(tables / "swap", share_tables)
        texts[tables / "swap.csv"] = shares.to_csv(index=False)
    shown = [block for block in shown if block.axes["mode"] != SWAP]
    slides = [slides_table(block, metrics, languages) for block in shown]
    texts |= _texts(tables / "slides", [table for table in slides if len(table.rows) > 1])  # more than the row of none
    held = orderings(shown, metrics, languages, samples)
    texts |= _texts(tables / "orderings", orderings_tables(held, metrics))
    gains, gain_tables = source_gains(shown, metrics, samples)
    if gain_tables:
        texts |= _texts(tables / "source_gain", gain_tables)
        texts[tables / "source_gain.csv"] = gains.to_csv(index=False)
    matrix, matrix_tables = language_matrix(table, languages, samples)
    if matrix_tables:
        texts |= _texts(tables / "languages", matrix_tables)
        texts[tables / "languages.csv"] = matrix.to_csv(index=False)
    texts[tables / "orderings.csv"] = held.to_csv(index=False)
    if generations:
        texts[folder / "generations.html"] = generations_page(generations)
        texts[folder / "generations.md"] = generations_markdown(generations)
    for path, text in texts.items():
        write_text(path, text)
    figures = draw_interventions(table[table["mode"] != SWAP], metrics, languages, folder / "figures")
    figures |= draw_seeds_of_lms(gains, metrics, languages, folder / "figures")
    figures |= draw_languages(matrix, languages, folder / "figures")
    with look():
        for picture in swap_pictures(shares):
            figures[picture.name] = save(with_none(draw_lines(picture)), folder / "figures", picture.name)[0]
    forget(folder, [*texts, *(path.with_suffix(kind) for path in figures.values() for kind in (".png", ".pdf"))])
    return figures


def _texts(path: Path, tables: Sequence[Table]) -> dict[Path, str]:
    """All tables as one Markdown and one LaTeX file; in Markdown what stands below them stands once, below the last."""
    foot = list(dict.fromkeys(line for table in tables for line in table.foot))
    bare = [replace(table, foot=foot if table is tables[-1] else []) for table in tables]
    return {
        path.with_suffix(".md"): "\n\n".join(markdown(table).strip() for table in bare) + "\n",
        path.with_suffix(".tex"): "\n".join(map(latex, tables)),
    }
