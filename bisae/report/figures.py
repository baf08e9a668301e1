"""The report's figures as .png and .pdf, each with the numbers that it shows (.csv)."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bisae.report.bins import Bins
from bisae.report.figures_features import alignment, distributions, emergence, living, thresholds
from bisae.report.figures_panels import Picture, draw_densities, draw_lines
from bisae.report.figures_trends import own, trends
from bisae.report.style import look, save
from bisae.runtime.atomic import atomic_file
from bisae.training.baselines import TRAINED

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
    """Draw all figures into `folder`, or into one of its folders per SAE setting if there are several settings.

    A figure without data, or with a single value on the x axis, is left out; the log says why.

    Args:
        cells: The table of cells.
        read: `read(folder, "features")` gives the features of the cell in that folder.
        appeared: The emergence table: the step since which each final feature exists.
        bins: The bins of steps, layers and sizes.
        band: The kind of interval that bands show, a key of `averages.OVER`.
        panels: With up to so many layers, each layer has a panel; with more, each part of the depth.
        folder: The folder of the figures.

    Returns:
        The paths of all files.
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
    kinds = dict(iter(cells.groupby("SAE", observed=True)))
    by_name: dict[str, dict[str, Picture]] = {}
    for kind, same in kinds.items():
        for picture in trends(same, band, panels):
            by_name.setdefault(picture.name, {})[kind] = picture
    for pictures in by_name.values():
        yield from _lines(_below_each_other(pictures))
    for lm in own(cells):
        own_kinds = {kind: same for kind, same in kinds.items() if lm in set(same["lm"])}
        living_of = {kind: living(same, lm, read) for kind, same in own_kinds.items()}
        yield from _lines(_below_each_other({kind: distributions(of, lm) for kind, of in living_of.items()}))
        yield from _lines(_below_each_other({kind: thresholds(of, lm, panels) for kind, of in living_of.items()}))
        if appeared.empty:
            log.info("no figure emergence_%s: no LM was analysed at several steps", lm)
        else:
            since = {kind: emergence(same, appeared, lm, panels) for kind, same in own_kinds.items()}
            yield from _lines(_below_each_other(since))
        found = {kind: alignment(of, lm) for kind, of in living_of.items()}
        counts = pd.concat(
            [of.assign(panel=of["panel"] + _and(kind)) for kind, of in found.items() if len(of)] or [pd.DataFrame()]
        )
        if counts.empty:
            log.info("no figure alignment_%s: no feature has an alignment (no sentence pairs)", lm)
        else:
            note = "Features of all layers, final checkpoint, but single-token ones."
            title = f"{lm}, alignment and monosemanticity"
            axes = "alignment (correlation)", "monosemanticity"
            yield f"alignment_{lm}", counts, draw_densities(counts, title, note, *axes)


def _below_each_other(pictures: Mapping[str, Picture]) -> Picture:
    """One picture of those of each kind of SAE: trained ones, and the rows of each baseline below."""
    data = [one.data.assign(row=one.data["row"] + _and(kind, "\n")) for kind, one in pictures.items() if len(one.data)]
    return replace(next(iter(pictures.values())), data=pd.concat(data or [pd.DataFrame()]))


def _and(kind: str, mark: str = ", ") -> str:
    return "" if kind == TRAINED else f"{mark}{kind}"


def _lines(picture: Picture) -> Iterator[tuple[str, pd.DataFrame, Figure]]:
    values = picture.data["x"].nunique() if len(picture.data) else 0
    if values > 1:
        yield picture.name, picture.data, draw_lines(picture)
    else:
        log.info("no figure %s: it needs two values of %s, the cells have %d", picture.name, picture.x, values)
