"""The style of figures: at the size of print; lines differ in grey too, and for every kind of colour vision."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from bisae.runtime.atomic import atomic_file

COLUMN, PAGE = 3.3, 6.75  # inches
JAPANESE = "IPAexGothic"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (  # Okabe and Ito, without yellow, which is faint on white
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
STYLES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"), (BLACK, "X"))
NAMED = {"English": 0, "Japanese": 1, "Mixed": 2, "Mixed, not bilingual": 2, "bilingual": 3, "aligned": 4, "all": 5}
LOOK = {
    "font.family": ["DejaVu Sans", JAPANESE],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 1.8,
    "figure.titlesize": 6.5,
    "lines.linewidth": 1,
    "lines.markersize": 3,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
}


@contextmanager
def look() -> Iterator[None]:
    """Use the settings above inside the `with` block; restore Matplotlib's own ones afterwards."""
    if JAPANESE not in fontManager.get_font_names():
        # From its file: importing the package would change the font of everybody's figures.
        font = distribution("matplotlib-fontja").locate_file("matplotlib_fontja/fonts/ipaexg.ttf")
        fontManager.addfont(str(font))
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every glyph of a .pdf
    with matplotlib.rc_context(LOOK):  # type: ignore[arg-type]
        yield


def style_of(line: str, lines: list[str]) -> tuple[str, str]:
    """The colour and the marker of one of several lines. Classes of features look the same in all figures."""
    if line in NAMED:
        return STYLES[NAMED[line]]
    taken = {NAMED.get(other) for other in lines}
    free = [style for number, style in enumerate(STYLES) if number not in taken] or STYLES
    return free[[other for other in lines if other not in NAMED].index(line) % len(free)]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.pdf. The same figure gives the same bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once for both
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path, stamp in zip(paths, ("Software", "CreationDate"), strict=True):
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata={stamp: None})
    return paths
