"""The report's figures: .png and .pdf, each with the numbers drawn (.csv)."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bisae.report.bins import Bins
from bisae.report.figures_features import alignment, distributions, emergence, living, thresholds
from bisae.report.figures_panels import Picture, draw_densities, draw_lines
from bisae.report.figures_trends import own, trends
from bisae.report.style import look, save
from bisae.runtime.atomic import atomic_file

log = logging.getLogger(__name__)


def draw_figures(
    cells: pd.DataFrame,
    read: Callable[[str, str], pd.DataFrame],
    appeared: pd.DataFrame,
    bins: Bins,
    band: str,
    panels: int,
    folder: Path,
) -> list[Path]:
    """Draw into `folder`, or a folder of it for each SAE setting if there are several.

    `read(cell's folder, "features")` gives a cell's features; `appeared` is the emergence table, `band` what bands are
    over (`averages.OVER`), `panels` how many layers have one each. A figure whose x axis would have a single value, or
    that has no data, is left out; the log says why.
    """
    labelled = bins.label(cells)
    written = []
    with look():
        for setting, same in labelled.groupby("setting", sort=False):
            place = folder / "-".join(str(setting).split()) if labelled["setting"].nunique() > 1 else folder
            for name, drawn, figure in _figures(same, read, appeared, band, panels):
                written += save(figure, place, name)
                with atomic_file(place / f"{name}.csv") as temporary:
                    drawn.to_csv(temporary, index=False)
                written.append(place / f"{name}.csv")
    return written


def _figures(
    cells: pd.DataFrame, read: Callable[[str, str], pd.DataFrame], appeared: pd.DataFrame, band: str, panels: int
) -> Iterator[tuple[str, pd.DataFrame, Figure]]:
    for picture in trends(cells, band, panels):
        yield from _lines(picture)
    for lm in own(cells):
        features = living(cells, lm, read)
        yield from _lines(distributions(features, lm))
        yield from _lines(thresholds(features, lm, panels))
        if appeared.empty:
            log.info("no figure emergence_%s: no LM was analysed at several steps", lm)
        else:
            yield from _lines(emergence(cells, appeared, lm, panels))
        counts = alignment(features, lm)
        if counts.empty:
            log.info("no figure alignment_%s: no feature has an alignment (no sentence pairs)", lm)
        else:
            note = "Features of all layers, final checkpoint, but single-token ones."
            title = f"{lm}, alignment and monosemanticity"
            axes = "alignment (correlation)", "monosemanticity"
            yield f"alignment_{lm}", counts, draw_densities(counts, title, note, *axes)


def _lines(picture: Picture) -> Iterator[tuple[str, pd.DataFrame, Figure]]:
    values = picture.data["x"].nunique() if len(picture.data) else 0
    if values > 1:
        yield picture.name, picture.data, draw_lines(picture)
    else:
        log.info("no figure %s: %d values of %s", picture.name, values, picture.x)
