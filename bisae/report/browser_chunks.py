"""What the browser reads of one analysed cell: an index of its features, blocks of contexts, blocks of text.

Numbers travel as base64 of little-endian arrays; strings that belong together as one string, separated by DEL. A
sequence is stored once, whichever features it shows, and numbered by its first use, so that the contexts of a feature
lie in few blocks of text. Each block of text knows which features show it: that is the index text search reads.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 256  # features a block of contexts
SEQUENCES = 512  # sequences a block of text
LABEL = 6  # peak tokens that stand for a feature in the list
SEPARATOR = "\x7f"  # takes one byte in JSON and has no glyph; in text it is shown as U+FFFD

Chunk = tuple[str, dict[str, Any]]


def pack(array: npt.ArrayLike, kind: str) -> dict[str, str]:
    """`kind`: f4, f8, i4, u2 or u1."""
    return {"kind": kind, "base64": b64encode(np.asarray(array).astype(f"<{kind}").tobytes()).decode()}


def pack_column(column: pd.Series) -> dict[str, Any]:
    """A column of a table in the smallest kind that keeps it: null becomes NaN, or 255 of yes/no and names.

    Floats are kept to float32, integers exactly.
    """
    if pd.api.types.is_bool_dtype(column.dropna().infer_objects()) and column.notna().any():
        return {"yes": pack([255 if pd.isna(value) else int(value) for value in column], "u1")}
    if pd.api.types.is_numeric_dtype(column):
        whole, wide = pd.api.types.is_integer_dtype(column) and column.notna().all(), column.dtype.itemsize > 4
        return pack(column, "i4" if whole and not wide else "f8" if whole else "f4")
    codes, names = pd.factorize(column)
    return {"names": [str(name) for name in names], "codes": pack(codes.astype(np.uint8), "u1")}


def join(texts: list[str]) -> str:
    return SEPARATOR.join(text.replace(SEPARATOR, "\ufffd") for text in texts)


def cell_chunks(folder: Path) -> Iterator[Chunk]:
    """Name and content of every data file of the cell analysed in `folder`.

    ValueError where a context names a sequence that sequences.parquet lacks, or the other tables a feature that
    features.parquet lacks.
    """
    features = pd.read_parquet(folder / "features.parquet").sort_values("feature")
    if features["feature"].tolist() != list(range(len(features))):
        raise ValueError(f"{folder}: features.parquet holds other features than 0..{len(features) - 1}")
    contexts, texts = BrowserContexts.read(folder), pq.read_table(folder / "sequences.parquet")
    if len(contexts.feature) and contexts.feature[-1] >= len(features):
        raise ValueError(f"{folder}: contexts of feature {contexts.feature[-1]}, which features.parquet lacks")
    texts = texts.take(_rows_of(contexts.numbers, texts["sequence"].to_numpy(), folder)).combine_chunks()
    path = folder / "tokens.parquet"
    tokens = pd.read_parquet(path).sort_values("feature", kind="stable") if path.exists() else None
    yield (
        "index",
        {
            "columns": {str(name): pack_column(features[name]) for name in features.columns},
            "labels": _labels(contexts, texts, len(features)),
            "sequences": texts.num_rows,
            "block": {"features": FEATURES, "sequences": SEQUENCES},
        },
    )
    for first in range(0, len(features), FEATURES):
        last = min(first + FEATURES, len(features))
        yield f"features/{first // FEATURES}", contexts.of_features(first, last) | _tokens(tokens, first, last)
    by_sequence = np.argsort(contexts.sequence, kind="stable")
    for first in range(0, texts.num_rows, SEQUENCES):
        shown = slice(*np.searchsorted(contexts.sequence[by_sequence], [first, first + SEQUENCES]))
        rows, block = by_sequence[shown], texts.slice(first, SEQUENCES)
        yield (
            f"sequences/{first // SEQUENCES}",
            {
                "text": [join(pieces) for pieces in block["pieces"].to_pylist()],
                "language": pack_column(block["language"].to_pandas()),
                "document": pack(block["document"], "i4"),
                "feature": pack(contexts.feature[rows], "i4"),
                "sequence": pack(contexts.sequence[rows] - first, "u2"),
                "peak": pack(contexts.peak[rows], "u2"),
            },
        )


@dataclass(frozen=True, eq=False)
class BrowserContexts:
    """All contexts of a cell, by feature and rank; `sequence` counts `numbers`, the sequences by first use."""

    feature: npt.NDArray[np.int32]
    sequence: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int32]
    peak: npt.NDArray[np.int16]
    activation: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]  # the values of context c are values[offsets[c]:offsets[c + 1]]
    values: npt.NDArray[np.uint8]

    @classmethod
    def read(cls, folder: Path) -> "BrowserContexts":
        table = pq.read_table(folder / "contexts.parquet")
        table = table.sort_by([("feature", "ascending"), ("rank", "ascending")]).combine_chunks()
        sequence, numbers = pd.factorize(table["sequence"].to_numpy())
        values = table["values"].combine_chunks()
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values.value_lengths().to_numpy(), out=offsets[1:])
        feature, peak, activation = (table[name].to_numpy() for name in ("feature", "peak", "activation"))
        return cls(feature, sequence, numbers, peak, activation, offsets, values.flatten().to_numpy())

    def of_features(self, first: int, last: int) -> dict[str, Any]:
        """The contexts of features `first` to `last` - 1; of their values those above 0."""
        starts = np.searchsorted(self.feature, np.arange(first, last + 1))
        rows = slice(starts[0], starts[-1])
        values = self.values[self.offsets[starts[0]] : self.offsets[starts[-1]]]
        entries = np.flatnonzero(values)
        ends = self.offsets[starts[0] : starts[-1] + 1] - self.offsets[starts[0]]
        entry_offsets = np.searchsorted(entries, ends)
        context = np.repeat(np.arange(len(ends) - 1), np.diff(entry_offsets))
        return {
            "contexts": pack(starts - starts[0], "i4"),
            "sequence": pack(self.sequence[rows], "i4"),
            "peak": pack(self.peak[rows], "u2"),
            "activation": pack(self.activation[rows], "f4"),
            "entries": pack(entry_offsets, "i4"),
            "position": pack(entries - ends[context], "u2"),
            "value": pack(values[entries], "u1"),
        }


def _rows_of(numbers: npt.NDArray[Any], known: npt.NDArray[Any], folder: Path) -> npt.NDArray[np.int64]:
    rows = pd.Index(known).get_indexer(numbers)
    if (rows < 0).any():
        raise ValueError(f"{folder}: sequences.parquet lacks sequence {numbers[np.argmin(rows)]} of a context")
    return rows


def _labels(contexts: BrowserContexts, texts: pa.Table, features: int) -> list[str]:
    """The commonest peak tokens of each feature, the stronger first on ties."""
    pieces = texts["pieces"].combine_chunks()
    starts = np.concatenate([[0], np.cumsum(pieces.value_lengths().to_numpy())])
    tokens = pieces.flatten().take(pa.array(starts[contexts.sequence] + contexts.peak)).to_pandas()
    tokens = tokens.str.strip().where(tokens.str.strip() != "", tokens.str.replace("\n", "⏎").str.replace(" ", "␣"))
    peaks = pd.DataFrame({"feature": contexts.feature, "token": tokens}).query("token != ''")
    common = peaks.groupby(["feature", "token"], sort=False).size().rename("count").reset_index()
    common = common.sort_values(["feature", "count"], ascending=[True, False], kind="stable")
    labels = common.groupby("feature").head(LABEL).groupby("feature")["token"].agg(lambda part: join(list(part)))
    return list(labels.reindex(range(features), fill_value=""))


def _tokens(tokens: pd.DataFrame | None, first: int, last: int) -> dict[str, Any]:
    """The tokens of features `first` to `last` - 1 with their clusters, where the analysis says them."""
    if tokens is None:
        return {}
    starts = np.searchsorted(tokens["feature"].to_numpy(), np.arange(first, last + 1))
    block = tokens.iloc[starts[0] : starts[-1]]
    return {
        "tokens": {
            "offsets": pack(starts - starts[0], "i4"),
            "token": join(block["token"].tolist()),
            "count": pack(block["count"], "i4"),
            "cluster": pack(block["cluster"], "i4"),
        }
    }
