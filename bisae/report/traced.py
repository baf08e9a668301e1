"""Traced latents of warm-started ladders: their lives, a table and a figure over training, and data for their pages."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bisae.analysis.lineage import Followed
from bisae.metrics.intervals import share_interval, t_interval
from bisae.report.browser_chunks import pack
from bisae.report.figures_panels import Picture, draw_lines
from bisae.report.markup import Piece, Table, latex, markdown, number
from bisae.report.style import look, save
from bisae.runtime.atomic import atomic_file, write_text

AXES = ("model", "layer", "sae", "seed", "hash")  # of a ladder; hash: of its last cell
ROWS = {  # of the figure, by what is measured
    "alive": "share of latents",
    "born": "share of latents",
    "gone": "share of latents",
    "co-activation": "co-activation\nwith the step before",
    "drift": "1 - cosine with\nthe direction at birth",
    "another class": "share of those\nthat live on",
}
ABOUT = (
    "Latents of a ladder of SAEs, each started from the one before. Born: fires, and did not fire on these tokens at "
    "the step before; gone: did, and does not any more. Drift: 1 - cosine of the decoder direction with that at birth. "
    "Another class: of those that live on since the step before."
)
CHANCE = (
    "By chance: one text shifted by half (born, gone, co-activation), another latent's direction (drift), classes "
    "shuffled among those that live on."
)
BANDS = "Bands: 95 % over latents (Wilson, Student)."


def write_traced(folder: Path, followed: Sequence[Followed], panels: int) -> list[Path]:
    """Write what was traced, if anything, into `folder`; returns the paths of all files.

    traced.parquet has a row for each latent and checkpoint, traced.csv for each life, tables/traced for each step of a
    ladder. figures/traced_<LM> has a panel for each layer, or for `panels` of them.
    """
    found = [(_axes(ladder), ladder.traced, ladder.about["least"]) for ladder in followed if ladder.traced is not None]
    if not found:
        return []
    points = pd.concat([traced_points(traced.table, least).assign(**axes) for axes, traced, least in found])
    lives = pd.concat([traced.lives.assign(**axes) for axes, traced, _ in found])
    table = _table(points)
    texts = {
        folder / "traced.csv": lives.to_csv(index=False),
        folder / "tables/traced.csv": points.to_csv(index=False),
        folder / "tables/traced.md": markdown(table),
        folder / "tables/traced.tex": latex(table),
    }
    for path, text in texts.items():
        write_text(path, text)
    with atomic_file(folder / "traced.parquet") as temporary:
        pd.concat([traced.table.assign(**axes) for axes, traced, _ in found]).to_parquet(temporary, index=False)
    written = [folder / "traced.parquet", *texts]
    with look():
        for picture in traced_pictures(points, panels):
            written += save(draw_lines(picture), folder / "figures", picture.name)
            with atomic_file(folder / "figures" / f"{picture.name}.csv") as temporary:
                picture.data.to_csv(temporary, index=False)
            written.append(folder / "figures" / f"{picture.name}.csv")
    return written


def _axes(ladder: Followed) -> dict[str, Any]:
    return {name: ladder.about[name] for name in AXES}


def traced_points(table: pd.DataFrame, least: float) -> pd.DataFrame:
    """What became of the latents of a ladder between its steps.

    Args:
        table: `Traced.table`.
        least: co-activation from which on a latent is the same feature.

    Returns:
        A row for each step and measure (the keys of `ROWS`): step, measure, value with low and high, and null, by
        chance. At the first step only the share of latents that are alive.
    """
    at = [rows.reset_index(drop=True) for _, rows in table.groupby("step")]
    rows = [_share(at[0], "alive", at[0]["life"] > 0)]
    for before, here in zip(at[:-1], at[1:], strict=True):
        lived, lives = before["life"] > 0, here["life"] > 0
        on = lives & (here["life"] == before["life"])
        by_chance = lived & lives & (before["chance"] >= least)
        classes = [one["class"][on].value_counts(normalize=True) for one in (before, here)]
        alike = classes[0].mul(classes[1], fill_value=0).sum()
        rows += [
            _share(here, "alive", lives),
            _share(here, "born", lives & ~on, (lives & ~by_chance).mean()),
            _share(here, "gone", lived & ~on, (lived & ~by_chance).mean()),
            _mean(here, "co-activation", before["same"][lived], before["chance"][lived]),
            _mean(here, "drift", here["drift"][on], here["drift_chance"][on]),
            _share(here, "another class", (before["class"] != here["class"])[on], 1 - alike),
        ]
    return pd.DataFrame(rows).dropna(subset="value")


def _share(here: pd.DataFrame, measure: str, among: pd.Series, null: float = np.nan) -> dict[str, Any]:
    interval = share_interval(int(among.sum()), len(among))._asdict()
    return {"step": here["step"][0], "measure": measure, "value": among.mean(), **interval, "null": null}


def _mean(here: pd.DataFrame, measure: str, values: pd.Series, null: pd.Series) -> dict[str, Any]:
    interval = t_interval(values.to_numpy(float))._asdict()
    return {"step": here["step"][0], "measure": measure, "value": values.mean(), **interval, "null": null.mean()}


def _table(points: pd.DataFrame) -> Table:
    by = ["model", "layer", "hash", "step"]
    rows = []
    for key, group in points.groupby(by, sort=False):
        found = group.set_index("measure").reindex(list(ROWS))
        rows.append([[Piece(str(text))] for text in (*key, *(_shown(row) for row in found.to_dict("records")))])
    return Table("Traced latents", [*by, *ROWS], rows, [f"{ABOUT} In brackets 95 % over latents. {CHANCE}"])


def _shown(row: dict[str, Any]) -> str:
    if pd.isna(row["value"]):
        return "–"
    value, low, high, null = (number(row[name], ".3f") for name in ("value", "low", "high", "null"))
    text = value if pd.isna(row["low"]) else f"{value} ({low} to {high})"
    return text if pd.isna(row["null"]) else f"{text}; chance {null}"


def traced_pictures(points: pd.DataFrame, panels: int) -> Iterator[Picture]:
    """A figure over the steps of each LM, of the rows of `traced_points` with the axes of their ladders."""
    for model, rows in points.groupby("model", sort=False):
        every = sorted(rows["layer"].unique())
        shown = [every[place] for place in np.linspace(0, len(every) - 1, min(panels, len(every))).round().astype(int)]
        data = rows[rows["layer"].isin(shown)].sort_values(["layer", "hash", "step"], kind="stable")
        several = data.groupby("layer")["hash"].transform("nunique") > 1
        panel = "layer " + data["layer"].astype(str)
        data = data.assign(panel=panel.mask(several, panel + ", " + data["hash"]), row=data["measure"].map(ROWS))
        data = data.rename(columns={"measure": "line", "step": "x"}).assign(dashed=False)
        data = data.sort_values("row", kind="stable", key=lambda row: row.map(list(ROWS.values()).index))
        fewer = f" {len(shown)} of {len(every)} layers are shown." * (len(shown) < len(every))
        note = f"{ABOUT} {CHANCE} {BANDS}{fewer}"
        title = f"{model}, its latents traced through training"
        yield Picture(f"traced_{model}", title, note, "LM training step", "step", data, "", "by chance")


def traced_chunk(ladder: Followed, names: Sequence[str]) -> dict[str, Any] | None:
    """What the browser shows of the latents of a ladder, by step and latent; `names`: of its cells, by step."""
    if ladder.traced is None:
        return None
    table = ladder.traced.table
    chunk: dict[str, Any] = {"cells": list(names), "latents": len(table) // len(names)}
    return chunk | {name: pack(table[name], "f4") for name in ("life", "same", "chance", "drift")}
