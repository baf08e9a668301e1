"""Scores of single examples by metrics that are slow to start: asked once for all, and never twice for the same."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from bisae.atomic import atomic_file

Columns = Mapping[str, Sequence[str]]


def segment_scores(metric: Any, many: Sequence[Columns], folder: Path) -> list[Float64[np.ndarray, " example"]]:
    """The score of each example of each of `many`; what is asked for the first time is kept in `folder`.

    `metric` has a `signature`, which names the file, and is a metric whose score is the mean over examples.
    """
    name = hashlib.sha256(metric.signature.encode()).hexdigest()[:12]
    path = folder / f"{type(metric).__name__.lower()}-{name}.parquet"
    kept = {} if not path.is_file() else dict(zip(*pd.read_parquet(path).to_numpy().T, strict=True))
    rows = [list(zip(*(columns[name] for name in metric.features), strict=True)) for columns in many]
    missing = {_key(row): row for part in rows for row in part if _key(row) not in kept}
    if missing:
        texts = zip(*missing.values(), strict=True)
        made = metric.compute(**{name: list(text) for name, text in zip(metric.features, texts, strict=True)})
        kept |= dict(zip(missing, made["segments"], strict=True))
        with atomic_file(path) as temporary:
            pd.DataFrame({"key": list(kept), "score": list(kept.values())}).to_parquet(temporary)
    return [np.array([kept[_key(row)] for row in part], np.float64) for part in rows]


def _key(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
