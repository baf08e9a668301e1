"""Make the measured tables and pictures of the pages again: python docs/make_tables.py FOLDER [--only NAME ...]

Each table stands between `<!-- table: NAME -->` and `<!-- end: NAME -->` on one page. This script runs its commands in
FOLDER and writes the table on its page from their results; a table that no page has is printed. Pictures go beside this
file. Finished commands answer at once, so the same command goes on after a kill. Everything takes hours on two cores,
most of them for the interventions. Times in the text are not made here.
"""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import tables
from PIL import Image
from plot_cells import plot
from tables import OTHER_SIZES, PARALLEL, UNPAIRED

from bisae.runtime.atomic import write_text

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
SWEEP = "train.py -m checkpoint=0,64,256,512,1024,2048 layer=all"


def keep(picture: Path, name: str) -> None:
    """Copy a picture beside this file, with 256 colours: a third of its bytes."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


def browser(folder: Path) -> None:
    """Pictures of the feature browser, where there is Chromium."""
    if not shutil.which("chromedriver"):
        sys.stderr.write("no chromedriver: pictures of the browser stay as they are\n")
        return
    from screenshots import screenshots  # needs selenium

    screenshots(folder / "report", folder / "pictures", "embedded")
    for name in ("feature", "list"):
        keep(folder / "pictures" / f"{name}.png", f"browser_{name}.png")


def figures(*names: tuple[str, str]) -> Callable[[Path], None]:
    """Copies figures of a report, each the one file that a pattern in FOLDER names."""

    def copy(folder: Path) -> None:
        for pattern, name in names:
            (found,) = folder.glob(pattern)
            keep(found, name)

    return copy


class Entry(NamedTuple):
    """A table, the commands whose results it shows, and pictures made from the same results."""

    commands: Sequence[str]
    table: Callable[[Path], str]
    pictures: Callable[[Path], None] = lambda folder: None


CONTROL = "train.py model=embedded_control layer=2"  # as many tokens as in the sweep
ANALYSIS = (SWEEP, CONTROL, "analyze.py space=shipped runs=[runs/embedded,runs/embedded_control]")
RUNS, RUNS_OF_SIZES = (",".join(f"runs/{name}" for name in names) for names in ((*PARALLEL, *UNPAIRED), OTHER_SIZES))
DEEP = (
    f"train.py -m model={','.join(PARALLEL)} checkpoint=0,1024,final layer=all",
    f"train.py -m model={','.join(UNPAIRED)} layer=all",
    f"analyze.py space=shipped runs=[{RUNS}] output=deep report.band=lm_seeds",
)
SOURCE_GAIN = "intervene.py -m experiment=source_gain layer=5 output=worth"
DEFAULT = "runs/embedded/step0002048/layer02"
ENTRIES = {
    "cells": Entry([SWEEP], tables.cells, lambda folder: plot(str(folder / "runs" / "embedded"), DOCS / "cells.png")),
    "steps": Entry(
        ANALYSIS,
        tables.steps,
        figures(
            ("report/figures/over_step_embedded.png", "over_step.png"),
            ("report/figures/over_layer.png", "over_layer.png"),
        ),
    ),
    "layers": Entry(ANALYSIS, tables.layers, browser),
    "seeds": Entry(
        DEEP,
        tables.seeds,
        figures(
            ("deep/figures/over_step_embedded_parallel.png", "seeds_over_step.png"),
            ("deep/figures/over_layer.png", "seeds_over_layer.png"),
            ("deep/figures/retrieval_embedded_parallel.png", "seeds_retrieval.png"),
        ),
    ),
    "parts": Entry(DEEP, tables.parts),
    "deep": Entry(DEEP, tables.deep),
    "sizes": Entry(
        [
            *DEEP[:2],
            f"train.py -m model={','.join(OTHER_SIZES)} layer=all",
            f"analyze.py space=shipped runs=[{RUNS},{RUNS_OF_SIZES}] output=sizes report.band=lm_seeds",
        ],
        tables.sizes,
        figures(("sizes/figures/over_size.png", "sizes.png")),
    ),
    "worth": Entry(
        [
            *DEEP,
            f"{SOURCE_GAIN} runs=[{RUNS}] donor.model={','.join(PARALLEL)}",
            f"{SOURCE_GAIN} runs=[{RUNS}] donor.model={','.join(UNPAIRED)} kind=[aligned,all]",
        ],
        tables.worth,
        figures(("worth/figures/lm_seeds_source-gain_*.png", "seeds_source_gain.png")),
    ),
    "controls": Entry(["analyze.py experiment=demo output=demo"], tables.controls),
    "trust": Entry(["analyze.py experiment=trust output=trust"], tables.trust),
    "bilingual": Entry(
        [
            "train.py -m checkpoint=0,512 layer=2",
            "train.py -m layer=all",
            "train.py -m model=embedded_control,embedded_d64",
            "analyze.py space=shipped runs=[runs/embedded,runs/embedded_control,runs/embedded_d64]",
        ],
        tables.bilingual,
    ),
    "languages": Entry(["train.py", f"analyze.py space=shipped runs={DEFAULT} output=languages"], tables.languages),
    "interventions": Entry(
        [*ANALYSIS, "intervene.py kind=[en,ja,bi,aligned,mixed,all] runs=runs/embedded"],
        tables.interventions,
        figures(("interventions/figures/changes_PPL-loss*.png", "intervention.png")),
    ),
    "source_gain": Entry([*ANALYSIS, "intervene.py experiment=source_gain runs=runs/embedded"], tables.source_gain),
    "ladders": Entry([], tables.ladders),
}


def page_of(name: str, pages: Sequence[Path]) -> Path | None:
    """The page that has the table `name`, None if there is none; SystemExit if it has several, or several pages do."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    found = [page for page, text in texts.items() for _ in range(text.count(f"<!-- table: {name} -->"))]
    if len(found) > 1:
        raise SystemExit(f"{len(found)} tables {name} between markers, in {', '.join(map(str, found))}; one is enough")
    return found[0] if found else None


def insert(page: Path, name: str, content: str) -> None:
    """Replace the table `name` of a page; SystemExit if its last marker is missing."""
    marked = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    text, found = marked.subn(lambda at: f"{at[1]}{content}\n{at[2]}", page.read_text(encoding="utf-8"))
    if not found:
        raise SystemExit(f"{page}: the table {name} has no end; add a line <!-- end: {name} -->")
    write_text(page, text)


def make(folder: Path, only: Sequence[str], overrides: Sequence[str], pages: Sequence[Path], pictures: bool) -> None:
    """Run the commands of the tables `only` in `folder` and write each table on the one of `pages` that has it.

    `overrides` are given to every command, in place of its own of the same keys.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, given = set(), {override.partition("=")[0] for override in overrides}
    for name, page in [(name, page_of(name, pages)) for name in only]:
        entry = ENTRIES[name]
        for command in entry.commands:
            if command not in done:
                script, *rest = shlex.split(command)
                words = [word for word in rest if word.partition("=")[0] not in given]
                subprocess.run([sys.executable, str(ROOT / script), *words, *overrides], cwd=folder, check=True)
                done.add(command)
        if page:
            insert(page, name, entry.table(folder))
        else:
            sys.stdout.write(f"{name}, which no page has:\n{entry.table(folder)}\n")
        if pictures:
            entry.pictures(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the commands run and leave their results")
    parser.add_argument("overrides", nargs="*", help="config values for every command, to try it with less")
    parser.add_argument("--only", nargs="+", choices=list(ENTRIES), default=list(ENTRIES), metavar="NAME")
    parser.add_argument("--page", type=Path, nargs="+", default=PAGES, help="default: README.md, docs/")
    parser.add_argument("--no-pictures", dest="pictures", action="store_false")
    given = parser.parse_args()
    make(given.folder, given.only, given.overrides, given.page, given.pictures)
