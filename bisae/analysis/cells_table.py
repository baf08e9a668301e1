"""The table of cells, one row per cell: `report/cells.csv`. Every table and figure of the report is made from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bisae.analysis.lineage import AnalysedCell
from bisae.cells.find import FoundCell
from bisae.lm.model import read_at
from bisae.runtime.values import flatten_keys
from bisae.training.baselines import TRAINED


def settings_of(cells: Sequence[FoundCell]) -> list[str]:
    """A name for how each cell's SAE was trained: its class, its size, and all settings that differ between cells with
    the same class, size and LM, but for the seed and the baseline.

    A setting that differs only between LMs, such as a learning rate chosen for each, is not in the name, so that LMs
    can be compared by it.
    """
    own = (
        "layer",
        "validation",
        "activations.weights",
        "activations.tokenizer",
        "sae.seed",
        "sae.baseline",
        "sae._target_",
    )
    trained = [{key: str(value) for key, value in flatten_keys(cell.identity) if key not in own} for cell in cells]
    steps = {cell.hash: cell.step for cell in cells}
    # A ladder of warm starts is one setting, with its first SAE where its LM has no others that started afresh.
    after = {values["start"]: cell for cell, values in zip(cells, trained, strict=True) if "start" in values}
    fresh = {
        cell.model
        for cell, values in zip(cells, trained, strict=True)
        if "start" not in values and cell.hash not in after
    }
    for cell, values in zip(cells, trained, strict=True):
        if (start := values.get("start")) in steps:
            values["start"] = "earlier step" if steps[start] < cell.step else "later step"
        elif start is None and cell.hash in after and cell.model not in fresh:
            values["start"] = "earlier step" if cell.step < after[cell.hash].step else "later step"
    short = [
        f"{cell.sae} {values['sae.latents']} k={values.get('sae.k', '-')}"
        for cell, values in zip(cells, trained, strict=True)
    ]
    frame = pd.DataFrame(trained).fillna("-")
    names = []
    models = [(name, cell.model) for name, cell in zip(short, cells, strict=True)]
    for name, cell, (_, values) in zip(short, cells, frame.iterrows(), strict=True):
        alike = frame[[other == (name, cell.model) for other in models]]
        varied = [key for key in frame.columns if alike[key].nunique() > 1]
        names.append(" ".join([name, *(f"{key.rpartition('.')[2]}={values[key]}" for key in varied)]))
    return names


def sae_name(row: Mapping[Any, Any]) -> str:
    """How the SAE of a row of the table was trained: its setting and, unless it was trained, its baseline."""
    baseline = [] if row["baseline"] == TRAINED else str(row["baseline"]).split("_")
    return " ".join([row["setting"], *baseline])


def _family(place: AnalysedCell) -> str:
    """The name that an LM shares with its other seeds, or its own."""
    family = place.checkpoint.recipe.model.get("family")
    return read_at(family, place.cell.hook) if family else place.cell.model


def cells_table(places: Sequence[AnalysedCell], controls: Sequence[str]) -> pd.DataFrame:
    """Build the table of cells.

    Args:
        places: The analysed cells.
        controls: Names or families of models whose text has no bridge between the languages.

    Returns:
        One row per cell: what it is, the SAE's validation metrics, and the metrics of its analysis.
    """
    rows = []
    for place, setting in zip(places, settings_of([place.cell for place in places]), strict=True):
        cell, analysis = place.cell, place.analysis.read()
        sae, lm = cell.identity["sae"], analysis["lm"]
        rows.append(
            {
                "setting": setting,
                "model": cell.model,
                "family": _family(place),
                "parameters": lm["parameters"],
                "d_model": lm["d_model"],
                "depth": lm["layers"],
                "step": cell.step,
                "lm_tokens": lm["tokens_seen"],
                "layer": cell.layer,
                "sae": cell.sae,
                "latents": sae["latents"],
                "k": float(sae.get("k", cell.metrics["val/l0"])),
                "seed": sae["seed"],
                "baseline": sae.get("baseline", TRAINED),
                "control": not {cell.model, _family(place)}.isdisjoint(controls),
                "hash": cell.hash,
                "folder": str(cell.folder),
                "tokens": analysis["tokens"],
                "fvu": cell.metrics["val/fvu"],
                "l0": cell.metrics["val/l0"],
                "gamma": cell.metrics.get("val/gamma"),  # older cells have none
                **analysis["metrics"],
            }
        )
    table = pd.DataFrame(rows)
    if not rows:
        return table
    numbers = ["parameters", "lm_tokens", *table.columns[table.columns.get_loc("fvu") :]]
    table = table.astype(dict.fromkeys(numbers, float)).copy()  # pandas wants so many columns in one piece
    return table.sort_values(["model", "step", "layer", "sae", "baseline", "seed", "hash"], ignore_index=True)
