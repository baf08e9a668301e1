from pathlib import Path

import pandas as pd
import pytest

from bisae.intervention.layer_choice import best_retrieval
from bisae.runtime.errors import Refused


def table(values: dict[int, float], **other: object) -> pd.DataFrame:
    """Retrieval by layer; the other spaces, directions and uncentred rows would each choose layer 1."""
    rows = []
    for layer, value in values.items():
        own = {"model": "main", "step": 2048, "layer": layer, "space": "stream", "centred": True, "direction": "both"}
        own |= {"value": value, "low": value - 0.01, "high": value + 0.01, "candidates": 1000}
        others: tuple[dict[str, object], ...] = (
            {"space": "codes"},
            {"centred": False},
            {"direction": "en-ja"},
            {"step": 512},
        )
        rows += [{**own, **other}, *({**own, **change, "value": 1.0 / layer if layer else 0.0} for change in others)]
    return pd.DataFrame(rows)


def test_the_layer_where_most_translations_are_found_is_chosen_with_the_languages_means_removed(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.csv"
    table({0: 0.9, 1: 0.2, 2: 0.31, 3: 0.4, 4: 0.1}).to_csv(file, index=False)
    choice = best_retrieval(file, "main", 2048, 4)
    assert choice.layer == 3  # the embeddings are no decoder block
    assert choice.by == "retrieval 0.400 (0.390 to 0.410) of 1000 candidates, best of layers 1 to 4"
    assert best_retrieval(file, "main", 512, 4).layer == 1
    table({1: 0.2, 2: 0.3, 3: 0.3}).to_csv(file, index=False)
    assert best_retrieval(file, "main", 2048, 3).layer == 2  # the lower one of two


def test_without_a_table_of_the_lm_at_every_layer_nothing_is_chosen(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.csv"
    with pytest.raises(Refused, match=r"^layer=auto: .*retrieval.csv is missing: run `python analyze.py"):
        best_retrieval(file, "main", 2048, 4)
    table({1: 0.2, 2: 0.3, 4: 0.1}).to_csv(file, index=False)
    with pytest.raises(Refused, match=r"does not hold main at step 128, only main at 512, main at 2048"):
        best_retrieval(file, "main", 128, 4)
    with pytest.raises(Refused, match=r"does not hold other at step 2048"):
        best_retrieval(file, "other", 2048, 4)
    with pytest.raises(Refused, match=r"lacks layer 3 of main at step 2048: analyse it with retrieval.layers=all"):
        best_retrieval(file, "main", 2048, 4)
    table({1: 0.2}).drop(columns="centred").to_csv(file, index=False)
    with pytest.raises(Refused, match="has no column centred, so it is not analyze.py's retrieval.csv"):
        best_retrieval(file, "main", 2048, 1)
