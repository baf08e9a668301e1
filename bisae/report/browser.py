"""The feature browser: index.html and the data beside it, opened from disk without server or network.

A page opened from disk may not fetch files, but may insert scripts: every data file is a script that hands one chunk to
the page. Chunks lie in folders named by a hash of what they were made from, so those of a cell whose analysis did not
change are left as they are.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xxhash
from jaxtyping import Float, Int

from bisae.report import browser_chunks
from bisae.report.browser_chunks import Chunk, cell_chunks, pack
from bisae.runtime.atomic import atomic_file, atomic_folder

ANALYSIS = ("features.parquet", "contexts.parquet", "sequences.parquet", "tokens.parquet")
LINKS = {
    "next_feature": "i4",
    "next_coactivation": "f4",
    "next_cosine": "f4",
    "final_feature": "i4",
    "final_coactivation": "f4",
}


class Neighbours(NamedTuple):
    """For each latent, the latents with the nearest decoder directions, nearest first, and their cosines."""

    feature: Int[np.ndarray, "latent neighbour"]
    cosine: Float[np.ndarray, "latent neighbour"]


@dataclass(frozen=True, eq=False)
class BrowserCell:
    """An analysed cell as the browser shows it.

    `name` stands in links. `axes` are model, step, layer, sae and seed. `folder` holds the analysis; its tokens.parquet
    (feature, token, count, cluster) may be missing. `history`: the rows of lineage.parquet of this cell. `effects`:
    what single features do (`bisae.report.effects`). `traced`: the cell's ladder of warm starts
    (`bisae.report.traced.traced_chunk`).
    """

    name: str
    axes: Mapping[str, str | int]
    folder: Path
    neighbours: Neighbours | None = None
    history: pd.DataFrame | None = None
    effects: Sequence[Mapping[str, Any]] = ()
    traced: Mapping[str, Any] | None = None


def write_browser(folder: Path, cells: Iterable[BrowserCell], report: Mapping[str, Any]) -> Path:
    """Write the browser of `cells` into `folder`; returns its index.html.

    `report` is shown on the first page: `title`, `figures` (paths of pictures relative to `folder`, with their
    captions) and `settings` (name -> value). Data of cells that are not among `cells` are removed.
    """
    site, data = folder / "browser", folder / "browser" / "data"
    shown = [_write_cell(data, cell) for cell in cells]
    for source in (files("bisae.report") / "site").iterdir():
        with atomic_file((folder if source.name == "index.html" else site) / source.name) as temporary:
            temporary.write_bytes(source.read_bytes())
    _write_chunk(data / "cells.js", "cells", {"report": dict(report), "cells": shown})
    kept = {cell[part] for cell in shown for part in ("data", "neighbours", "history", "effects", "traced")}
    for old in data.iterdir():
        if old.is_dir() and old.name not in kept:
            shutil.rmtree(old)
    return folder / "index.html"


def _write_cell(data: Path, cell: BrowserCell) -> dict[str, Any]:
    """Write the chunks of a cell that are missing. Returns the data of the cell that the first page needs."""
    analysis = json.loads((cell.folder / "analysis.json").read_text(encoding="utf-8"))
    content = [path.read_bytes() for path in (cell.folder / name for name in ANALYSIS) if path.exists()]
    shown: dict[str, Any] = {
        "name": cell.name,
        "axes": dict(cell.axes),
        **{key: analysis[key] for key in ("languages", "tokens", "metrics", "settings")},
        "data": _once(data, content, lambda: cell_chunks(cell.folder)),
        "neighbours": None,
        "history": None,
        "effects": None,
        "traced": None,
    }
    if cell.neighbours is not None:
        near = cell.neighbours
        packed = {"feature": pack(near.feature, "i4"), "cosine": pack(near.cosine, "f4"), "each": near.feature.shape[1]}
        shown["neighbours"] = _once_packed(data, "neighbours", packed)
    if cell.history is not None and len(cell.history):
        rows = cell.history.sort_values("feature")
        table = {name: pack(rows[name].fillna(-1), kind) for name, kind in {"feature": "i4", **LINKS}.items()}
        shown["history"] = _once_packed(data, "history", {"next_step": int(rows["next_step"].iloc[0]), **table})
    if cell.effects:
        shown["effects"] = _once_packed(data, "effects", {"rows": list(cell.effects)})
    if cell.traced:
        shown["traced"] = _once_packed(data, "traced", dict(cell.traced))
    return shown


def _once(data: Path, made_from: list[bytes], chunks: Callable[[], Iterable[Chunk]]) -> str:
    """Write `chunks` to a folder, unless it exists. It is named by a hash of the data that they are made from.

    Returns the name of the folder.
    """
    digest = xxhash.xxh3_64(Path(browser_chunks.__file__).read_bytes())  # other code writes other chunks
    for part in made_from:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    name = digest.hexdigest()
    if not (data / name).exists():
        with atomic_folder(data / name) as temporary:
            for key, value in chunks():
                _write_chunk(temporary / f"{key}.js", f"{name}/{key}", value)
    return name


def _once_packed(data: Path, key: str, value: dict[str, Any]) -> str:
    return _once(data, [json.dumps(value).encode()], lambda: [(key, value)])


def _write_chunk(path: Path, key: str, value: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    path.write_text(f"bisae.chunk({json.dumps(key)},{text})\n", encoding="utf-8")
