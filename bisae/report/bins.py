"""The bins of a report: phases of the LM's training, parts of its depth, sizes of LMs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Positive
from bisae.training.baselines import DRAWN, TRAINED

RANDOM = "random weights"
PHASES = ("early", "middle", "late")
LAYERS = ("lower", "middle", "upper")
SIZES = ("small", "large")
KINDS = {kind: kind.replace("_", " ") for kind in (TRAINED, *DRAWN)}  # of SAE, in the order of tables


@dataclass(frozen=True)
class Bins:
    """The edges between bins. An edge belongs to the bin below it, except that an LM of `size` parameters is large.

    `phases`: a step, or a share of the LM's last step if it is a float up to 1. `layers`: shares of the LM's depth.
    `size`: in parameters; None for the geometric mean of the smallest and the largest LM. `lm_seeds`: names of models
    that are seeds of one LM, by the name of that LM, beside those that name their `family`.

    Raises:
        Refused: edges that are not two ascending numbers, or a model that is a seed of two LMs.
    """

    phases: Sequence[Positive]
    layers: Sequence[Positive]
    size: Positive | None
    lm_seeds: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        for field, edges in (("phases", self.phases), ("layers", self.layers)):
            if len(edges) != 2 or not 0 < edges[0] < edges[1]:
                raise Refused(field, list(edges), "must be two ascending numbers above 0")
        models = [model for seeds in self.lm_seeds.values() for model in seeds]
        if len(models) > len(set(models)):
            raise Refused("lm_seeds", dict(self.lm_seeds), "names a model twice")

    def label(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Add the columns by which tables and figures group the table of cells.

        They are `SAE` (trained, or which baseline), `lm` (the name shared by the seeds of one LM), `final` (True at the
        model's last step), `phase` ("random weights" at step 0), `part` (of the depth), `height` (layer / layers of the
        LM) and `size` ("" if the parameters are not known or all LMs are equally large).

        Raises:
            Refused: two cells differ neither in LM, step, layer, SAE (name, latents, k), seed nor baseline.
        """
        cells = cells.reset_index(drop=True)
        last = cells.groupby("model")["step"].transform("max")
        edges = [edge * last if _is_fraction(edge) else edge for edge in self.phases]
        upto = [cells["step"] == 0, *(cells["step"] <= edge for edge in edges)]
        middle = (cells["layer"] - 0.5) / cells["depth"]
        lm = {model: name for name, models in self.lm_seeds.items() for model in models}
        labelled = cells.assign(
            SAE=pd.Categorical([KINDS[kind] for kind in cells["baseline"]], KINDS.values()),
            lm=[lm.get(model, family) for model, family in zip(cells["model"], cells["family"], strict=True)],
            final=cells["step"] == last,
            phase=np.select(upto, [RANDOM, *PHASES[:2]], PHASES[2]),
            part=np.array(LAYERS)[np.searchsorted(self.layers, middle)],
            height=cells["layer"] / cells["depth"],
            size=self._size(cells["parameters"]),
        )
        same = labelled.duplicated(["model", "step", "layer", "setting", "seed", "baseline"], keep=False)
        if same.any():
            first = ", ".join(labelled.loc[same, "folder"].iloc[:2])
            raise Refused("runs", first, "these differ in settings that a report averages over: name fewer cells")
        return labelled

    def rule(self, name: str) -> str:
        """A sentence for the foot of the table `name` that explains its bins."""
        if name == "sizes":
            edge = "the geometric mean of the smallest and the largest LM" if self.size is None else f"{self.size:g}"
            return f"Large: at least {edge} parameters."
        if name == "layers":
            lower, middle = self.layers
            return f"Lower: (layer - 0.5) / layers of the LM up to {lower:g}; middle: up to {middle:g}."
        edges = [f"{edge:.0%} of the last step" if _is_fraction(edge) else f"step {edge}" for edge in self.phases]
        return f"Early: up to {edges[0]}; middle: up to {edges[1]}; random weights: step 0."

    def _size(self, parameters: pd.Series) -> list[str]:
        known = parameters.dropna().astype(float)
        edge = self.size
        if edge is None:
            if known.nunique() < 2:
                return [""] * len(parameters)
            edge = float(np.sqrt(known.min() * known.max()))
        return ["" if pd.isna(number) else SIZES[int(number >= edge)] for number in parameters]


def _is_fraction(edge: float | int) -> bool:
    return isinstance(edge, float) and edge <= 1
