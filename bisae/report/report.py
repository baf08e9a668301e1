"""The report: everything people look at, from the analysed cells."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bisae.analysis.cells_table import sae_name
from bisae.analysis.lineage import AnalysedCell, Followed
from bisae.cells.find import FoundCell
from bisae.report.averages import check_kinds
from bisae.report.bins import Bins
from bisae.report.browser import BrowserCell, Neighbours, write_browser
from bisae.report.effects import effects
from bisae.report.examples import Examples
from bisae.report.written import forget
from bisae.runtime.atomic import atomic_file, write_json
from bisae.runtime.ranges import Count, Text
from bisae.runtime.values import flatten_keys


@dataclass(frozen=True)
class Report:
    """Writes reports (config group `report`).

    `intervals`: the kinds of interval in tables, `band`: the one in figures (keys of `averages.OVER`). `panels`: see
    `figures.draw_figures`. `interventions`: folders of results of intervene.py, for the pages of features.
    """

    bins: Bins
    intervals: Sequence[str]
    examples: Examples
    band: Text
    panels: Count
    interventions: Text | Sequence[Text] | None = None

    def __post_init__(self) -> None:
        check_kinds("intervals", self.intervals)
        check_kinds("band", [self.band])

    def write(
        self, folder: Path, cells: pd.DataFrame, places: Sequence[AnalysedCell], followed: Sequence[Followed]
    ) -> list[Path]:
        """Write tables, figures and the browser into `folder`, and replace an earlier report there.

        The caller must hold the folder's lock.

        Args:
            folder: The folder of the report.
            cells: The table of cells (`bisae.analysis.cells_table`).
            places: The same cells, with their analyses.
            followed: The features of each ladder of checkpoints.

        Returns:
            The paths of the figures.

        Raises:
            Refused: The cells cannot be averaged over (`Bins.label`). The earlier report stays.
        """
        # Here, since matplotlib is slow to import: an analysis without a report does not wait for it.
        from bisae.analysis.precision_recall import score
        from bisae.report.figures import draw_figures
        from bisae.report.precision_recall import write_scores
        from bisae.report.retrieval import write_retrieval
        from bisae.report.tables import write_tables
        from bisae.report.traced import traced_chunk, write_traced

        analysed = {str(place.cell.folder): place.analysis.folder for place in places}

        def read(cell: str, name: str) -> pd.DataFrame:
            return pd.read_parquet(analysed[cell] / f"{name}.parquet")

        labelled = self.bins.label(cells)  # refuses before anything is replaced
        folders = [self.interventions] if isinstance(self.interventions, str) else self.interventions or ()
        done = effects([Path(one) for one in folders])
        lineage = {hash: table for ladder in followed for hash, table in ladder.lineage.items()}
        emergence = pd.concat([pd.DataFrame(), *(ladder.emergence for ladder in followed)], ignore_index=True)
        _keep(folder / "cells", [cells])
        with atomic_file(folder / "cells.csv") as temporary:
            cells.to_csv(temporary, index=False)
        _keep(folder / "lineage", lineage.values())
        _keep(folder / "emergence", [emergence])
        write_json(folder / "lineage.json", [ladder.about for ladder in followed])
        tables = write_tables(cells, read, self.bins, self.intervals, self.examples, folder / "tables")
        figures = draw_figures(cells, read, emergence, self.bins, self.band, self.panels, folder / "figures")
        figures += write_retrieval(labelled, read, folder)
        scored = score(places, followed)
        figures += write_traced(folder, followed, self.panels)
        if len(scored.labels):  # of a planted LM
            figures += write_scores(scored, folder)
        shown = {
            "title": "Features of a bilingual LM",
            "figures": {
                str(path.relative_to(folder)): path.stem.replace("_", " ") for path in figures if path.suffix == ".png"
            },
            "settings": {key: value for key, value in flatten_keys(places[0].analysis.settings) if value is not None},
        }
        names = {place.cell.hash: _name(place.cell) for place in places}
        traced: dict[str, Mapping[str, Any] | None] = {}
        for ladder in followed:
            hashes = [*ladder.lineage, ladder.about["hash"]]
            traced |= dict.fromkeys(hashes, traced_chunk(ladder, [names[hash] for hash in hashes]))
        saes = {row["hash"]: sae_name(row) for row in cells.to_dict("records")}
        browsed = (
            _browsed(place, saes[hash], lineage.get(hash), done, traced.get(hash))
            for place, hash in ((place, place.cell.hash) for place in places)
        )
        write_browser(folder, browsed, shown)
        forget(folder, [*tables, *figures])
        return figures


def _keep(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    """Write tables of the same columns as one Parquet file, each as a row group; without tables an empty one."""
    with atomic_file(path.with_suffix(".parquet")) as temporary, ExitStack() as stack:
        writer: Any = None
        for table in tables or [pd.DataFrame()]:
            rows = pa.Table.from_pandas(table, preserve_index=False)
            writer = writer or stack.enter_context(pq.ParquetWriter(temporary, rows.schema))
            writer.write_table(rows)


def _name(cell: FoundCell) -> str:
    """The cell's name in the browser."""
    return f"{cell.model}/step{cell.step:07d}/layer{cell.layer:02d}/{cell.folder.name}"


def _browsed(
    place: AnalysedCell,
    sae: str,
    history: pd.DataFrame | None,
    done: Mapping[str, list[dict[str, Any]]],
    traced: Mapping[str, Any] | None,
) -> BrowserCell:
    cell, folder = place.cell, place.analysis.folder
    seed = cell.identity["sae"]["seed"]
    axes = {"model": cell.model, "step": cell.step, "layer": cell.layer, "sae": sae, "seed": seed}
    near = pd.read_parquet(folder / "neighbours.parquet")
    neighbours = Neighbours(*(np.stack(near[column].to_list()) for column in ("feature", "cosine")))
    effects = done.get(cell.folder.name, ())
    return BrowserCell(_name(cell), axes, folder, neighbours, history, effects, traced)
