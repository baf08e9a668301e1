"""layer=auto: the layer whose streams retrieve translations best, by analyze.py's table and before any intervention."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from bisae.analysis.sentence_pairs import BOTH, STREAM
from bisae.runtime.errors import Refused

AUTO = "auto"
NEEDED = ("model", "step", "layer", "space", "centred", "direction", "value", "low", "high", "candidates")


class LayerChoice(NamedTuple):
    """A layer, and in words what it was chosen by."""

    layer: int
    by: str


def best_retrieval(file: Path, model: str, step: int, depth: int) -> LayerChoice:
    """The decoder block after which most sentences have their own translation as the nearest one.

    The languages' means are subtracted, both directions count alike, and of equal layers the lowest is chosen.

    Args:
        file: `retrieval.csv` of a report of analyze.py.
        model, step: the LM checkpoint.
        depth: its number of decoder blocks; the file must hold the stream of each.

    Raises:
        Refused: (`layer`) the file is missing, is no such table, or lacks the LM, the step or a layer.
    """
    analyze = "run `python analyze.py space=shipped` on its cells, name another report by `retrieval`, or give a layer"
    if not file.is_file():
        raise Refused(
            "layer", AUTO, f"is chosen by analyze.py's retrieval of translations, but {file} is missing: {analyze}"
        )
    table = pd.read_csv(file)
    if lacking := [name for name in NEEDED if name not in table]:
        raise Refused(
            "layer", AUTO, f"{file} has no column {lacking[0]}, so it is not analyze.py's retrieval.csv: {analyze}"
        )
    streams = table[(table["space"] == STREAM) & table["centred"].astype(bool) & (table["direction"] == BOTH)]
    here = streams[(streams["model"] == model) & (streams["step"] == step)].sort_values("layer", kind="stable")
    if here.empty:
        known = ", ".join(
            f"{name} at {at}" for name, at in sorted(set(zip(streams["model"], streams["step"], strict=True)))
        )
        raise Refused(
            "layer", AUTO, f"{file} does not hold {model} at step {step}, only {known or 'nothing'}: {analyze}"
        )
    if missing := sorted(set(range(1, depth + 1)) - set(here["layer"])):
        remedy = f"{file} lacks layer {missing[0]} of {model} at step {step}: analyse it with retrieval.layers=all"
        raise Refused("layer", AUTO, remedy)
    blocks = here[here["layer"] >= 1]
    best = blocks.loc[blocks["value"].idxmax()]
    value, low, high = (f"{best[name]:.3f}" for name in ("value", "low", "high"))
    by = f"retrieval {value} ({low} to {high}) of {int(best['candidates'])} candidates, best of layers 1 to {depth}"
    return LayerChoice(int(best["layer"]), by)
