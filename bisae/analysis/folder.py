"""A cell's analysis on disk, in `<cell>/analysis/<hash of the rules>/`. It is complete or absent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bisae.analysis.feature_table import Described
from bisae.analysis.summary import Metrics
from bisae.cells.cell import FEATURES
from bisae.cells.find import FoundCell
from bisae.features.tokens import Tokens
from bisae.runtime.atomic import atomic_file, atomic_folder, write_json
from bisae.runtime.naming import name_of


@dataclass(frozen=True)
class Analysis:
    """The analysis of a cell by `settings` (the rules and the text)."""

    cell: FoundCell
    settings: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return self.cell.folder / "analysis" / name_of(self.settings)

    @property
    def finished(self) -> bool:
        return (self.folder / "analysis.json").is_file()

    def read(self) -> dict[str, Any]:
        """Read `analysis.json`."""
        content: dict[str, Any] = json.loads((self.folder / "analysis.json").read_text(encoding="utf-8"))
        return content

    def check(self) -> None:
        """Read what the report needs.

        Raises:
            ValueError, KeyError, OSError: A file is damaged, or the cell has no validation metrics.
        """
        self.read()["metrics"]
        for file in self.folder.glob("*.parquet"):
            pq.read_schema(file)
        self.cell.metrics["val/fvu"]

    def logged(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a logger is told: the LM, as axes of the cell's run, and the metrics of the analysis."""
        found = self.read()
        lm = {"parameters": found["lm"]["parameters"], "d_model": found["lm"]["d_model"]}
        lm["lm_tokens"] = found["lm"]["tokens_seen"]
        figures = {**found["metrics"], "tokens": found["tokens"], "rules": self.folder.name}
        return lm, {f"analysis/{name}": value for name, value in figures.items()}

    def features(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / FEATURES)

    def write(
        self,
        described: Described,
        metrics: Metrics,
        tokens: Tokens,
        languages: Sequence[str],
        texts: Sequence[str],
        pieces: Any,
        lm: Mapping[str, Any],
        near: tuple[np.ndarray, np.ndarray],
        retrieval: pd.DataFrame,
    ) -> None:
        """Write all files of the analysis at once.

        Args:
            described: The features and their contexts.
            metrics: The cell's metrics.
            tokens: The analysed text.
            languages: The languages of the text.
            texts: The text of each vocabulary item.
            pieces: A function that gives the readable text of each token of a sequence.
            lm: A description of the LM.
            near: The neighbours of each feature (`bisae.features.measures.lineage.nearest`).
            retrieval: Retrieval of translations (`bisae.analysis.sentence_pairs.OnPairs`).
        """
        summary = {
            **{key: getattr(self.cell, key) for key in ("model", "step", "layer", "sae", "hash")},
            "lm": lm,
            "settings": self.settings,
            "languages": list(languages),
            "tokens": len(tokens),
            "metrics": metrics,
        }
        with atomic_folder(self.folder) as temporary:
            _write(temporary / FEATURES, _described(described.features, self.settings))
            _write(temporary / "contexts.parquet", _contexts(described))
            _write(temporary / "tokens.parquet", _tokens(described, texts))
            _write(temporary / "sequences.parquet", _sequences(described, tokens, languages, pieces))
            _write(temporary / "neighbours.parquet", pa.table({"feature": list(near[0]), "cosine": list(near[1])}))
            _write(temporary / "retrieval.parquet", pa.Table.from_pandas(retrieval, preserve_index=False))
            write_json(temporary / "analysis.json", summary)

    def publish(self, further: pd.DataFrame | None = None, seeds: Sequence[str] = ()) -> None:
        """Write the features to `<cell>/features.parquet`, where other commands find them.

        Args:
            further: Columns to add, a row per feature (`bisae.analysis.stability.Found`). None leaves a table of this
                analysis as it is, with such columns.
            seeds: The cells that these columns depend on, kept in the table's metadata.
        """
        table, published = pq.read_table(self.folder / FEATURES), self.cell.folder / FEATURES
        if further is not None:
            for name, column in further.items():
                table = table.append_column(str(name), pa.array(column))
            table = table.replace_schema_metadata({**table.schema.metadata, b"seeds": json.dumps(list(seeds)).encode()})
        elif _name_in(published) == name_of(self.settings):
            return
        with atomic_file(published) as temporary:
            _write(temporary, table)


def _name_in(features: Path) -> str | None:
    """The name of the rules by which a table of features was made; None if it is not there or damaged."""
    try:
        found: str = json.loads(pq.read_schema(features).metadata[b"bisae"])["name"]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def _described(features: pd.DataFrame, settings: Mapping[str, Any]) -> pa.Table:
    table = pa.Table.from_pandas(features, preserve_index=False)
    rules = json.dumps({"rules": settings, "name": name_of(settings)}, ensure_ascii=False)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"bisae": rules.encode()})


def _contexts(described: Described) -> pa.Table:
    contexts = described.contexts
    return pa.table(
        {
            "feature": contexts.latent.astype(np.int32),
            "rank": contexts.rank,
            "sequence": contexts.sequence,
            "peak": contexts.peak,
            "activation": contexts.activation,
            "values": pa.ListArray.from_arrays(contexts.offsets.astype(np.int32), contexts.values),
        }
    )


def _tokens(described: Described, texts: Sequence[str]) -> pa.Table:
    """The tokens at the peaks of the contexts, by feature."""
    counts = described.counts
    return pa.table(
        {
            "feature": counts.feature_of_entry().astype(np.int32),
            "token": [texts[token] for token in counts.tokens],
            "count": counts.counts.astype(np.int32),
            "cluster": described.clusters.astype(np.int32),
        }
    )


def _sequences(described: Described, tokens: Tokens, languages: Sequence[str], pieces: Any) -> pa.Table:
    used = np.unique(described.contexts.sequence)
    starts, stops = tokens.borders[used], tokens.borders[used + 1]
    ids = [tokens.token_ids[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return pa.table(
        {
            "sequence": used,
            "document": tokens.document[starts],
            "language": [languages[number] for number in tokens.language[starts]],
            "token_ids": pa.array(ids, pa.list_(pa.int32())),
            "pieces": pa.array([pieces(row.tolist()) for row in ids], pa.list_(pa.string())),
        }
    )
