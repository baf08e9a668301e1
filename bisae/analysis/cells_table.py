"""The table of cells: one tidy row each, what `report/cells.csv` and every figure are made from."""

from collections.abc import Sequence

import pandas as pd

from bisae.analysis.lineage import AnalysedCell
from bisae.cells.find import FoundCell
from bisae.runtime.values import flatten_keys


def settings_of(cells: Sequence[FoundCell]) -> list[str]:
    """A name for what was trained: the SAE's, its size, and whatever else differs among cells of that name and LM.

    What differs only from LM to LM, as a learning rate chosen for each, is not in the name: LMs are compared by it.
    """
    own = ("layer", "validation", "activations.weights", "activations.tokenizer", "sae.seed", "sae._target_")
    trained = [{key: str(value) for key, value in flatten_keys(cell.identity) if key not in own} for cell in cells]
    short = [
        f"{cell.sae} {one['sae.latents']} k={one.get('sae.k', '-')}" for cell, one in zip(cells, trained, strict=True)
    ]
    frame = pd.DataFrame(trained).fillna("-")
    names = []
    models = [(name, cell.model) for name, cell in zip(short, cells, strict=True)]
    for name, cell, (_, one) in zip(short, cells, frame.iterrows(), strict=True):
        alike = frame[[other == (name, cell.model) for other in models]]
        varied = [key for key in frame.columns if alike[key].nunique() > 1]
        names.append(" ".join([name, *(f"{key.rpartition('.')[2]}={one[key]}" for key in varied)]))
    return names


def cells_table(places: Sequence[AnalysedCell], controls: Sequence[str]) -> pd.DataFrame:
    """Axes, the SAE's validation metrics and the analysis' metrics; `controls` are models without a bridge."""
    rows = []
    for place, setting in zip(places, settings_of([place.cell for place in places]), strict=True):
        cell, about = place.cell, place.analysis.read()
        sae, lm = cell.identity["sae"], about["lm"]
        rows.append(
            {
                "setting": setting,
                "model": cell.model,
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
                "control": cell.model in controls,
                "hash": cell.hash,
                "folder": str(cell.folder),
                "tokens": about["tokens"],
                "fvu": cell.metrics["val/fvu"],
                "l0": cell.metrics["val/l0"],
                **about["metrics"],
            }
        )
    table = pd.DataFrame(rows)
    if not rows:
        return table
    numbers = ["parameters", "lm_tokens", *table.columns[table.columns.get_loc("fvu") :]]
    table = table.astype(dict.fromkeys(numbers, float)).copy()  # pandas wants so many columns in one piece
    return table.sort_values(["model", "step", "layer", "sae", "seed", "hash"], ignore_index=True)
