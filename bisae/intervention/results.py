"""Results of interventions on disk: `<output>/rows/<hash>/` holds what the intervention is and its measures."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bisae.intervention.layer_features import LayerFeatures, mark
from bisae.intervention.measures import Measure, file_name
from bisae.intervention.specs import PLAIN, RANDOM, InterventionSpec
from bisae.lm.model import Checkpoint
from bisae.runtime.atomic import atomic_file, write_json
from bisae.runtime.naming import name_of

FILE = "row.json"


@dataclass(frozen=True)
class InterventionResult:
    """The result of one intervention on one LM, in `folder`.

    `axes` are its columns in the table; `identity` is everything that changes the measures, and names the folder.
    """

    folder: Path
    axes: Mapping[str, Any]
    identity: Mapping[str, Any]

    @classmethod
    def planned(
        cls,
        output: Path,
        spec: InterventionSpec,
        recipient: Checkpoint,
        donor: Checkpoint,
        layers: Mapping[int, LayerFeatures],
        text: str,
        dtype: str,
        layer_by: str = "",
        family: str | None = None,
    ) -> "InterventionResult":
        """The result that `spec` will have on `recipient`; `none` has the same one for every donor.

        Args:
            output: folder of all results.
            layers: the donor's features at each layer.
            text: checksum of the text that strengths are measured on.
            dtype: of the LM's weights.
            layer_by: what the layer was chosen by; a result that is there keeps what it was measured under.
            family: shared by the donor and LMs that differ from it in their seed only, or None.
        """
        lm = {"weights": recipient.weights, "tokenizer": recipient.tokenizer, "dtype": dtype}
        axes: dict[str, Any] = {"model": recipient.model, "recipient": recipient.step}
        identity: dict[str, Any] = {"lm": lm, "kind": spec.kind}
        if spec is not PLAIN:
            same: dict[str, Any] = {
                "control": spec.control,
                "seed": spec.seed,
                "mode": spec.mode,
                "norm": spec.norm,
            }
            same["coefficient"] = None if np.isnan(spec.coefficient) else spec.coefficient
            if spec.like is not None:
                identity["strength"] = text
            identity |= same | {"donor": None if spec.alone else donor.weights}
            identity["layers"] = {
                str(layer): {
                    "sae": layers[layer].checksum,
                    "chosen": mark(chosen),
                    "like": spec.like and mark(spec.like[layer]),
                }
                for layer, chosen in spec.chosen.items()
            }
            if family:
                axes["family"] = family
            if donor.model != recipient.model:
                axes["donor_model"] = donor.model
            axes |= {
                "donor": donor.step,
                "layers": "+".join(map(str, layers)),
                "layer_by": layer_by,
                "sae": "+".join(f"{features.cell.sae}-{features.cell.hash}" for features in layers.values()),
                "rules": "+".join(sorted({features.rules for features in layers.values()})),
                "limit": spec.limit,
                "features": int(sum(map(np.count_nonzero, spec.chosen.values()))),
            }
            axes |= {key: value for key, value in same.items() if key != "rules"}
            if spec.control == RANDOM:
                axes |= {"drawn_from": spec.drawn_from, "widening": spec.widening}
        axes |= {"kind": spec.kind, "control": spec.control}
        folder = output / "rows" / name_of(identity)
        if spec is not PLAIN and (folder / FILE).is_file():
            axes["layer_by"] = json.loads((folder / FILE).read_text(encoding="utf-8"))["axes"].get("layer_by", "")
        return cls(folder, axes, identity)

    def has(self, measure: Measure) -> bool:
        return (self.folder / FILE).is_file() and (self.folder / file_name(measure)).is_file()

    def keep(self, measure: Measure, table: pd.DataFrame, change: Mapping[str, float]) -> None:
        """Write the table of `measure`; `change` is how much the edits changed the stream meanwhile."""
        if not (self.folder / FILE).is_file():
            write_json(self.folder / FILE, {"axes": self.axes, "identity": self.identity})
        table.attrs = dict(change)
        with atomic_file(self.folder / file_name(measure)) as temporary:
            table.to_parquet(temporary)

    def read(self, measure: Measure) -> pd.DataFrame:
        return pd.read_parquet(self.folder / file_name(measure))

    def measures(self, asked: Iterable[Measure]) -> list[Measure]:
        """The measures that complete this result: those `asked` for.

        For a draw of a random control without generated text they are each measure's part without text.
        """
        if self.axes["control"] != RANDOM:
            return list(asked)
        measured = (measure if self.has(measure) else measure.unwritten for measure in asked)
        return [measure for measure in measured if measure is not None]


def measured_results(
    output: Path, measures: Iterable[Measure], asked: Iterable[InterventionResult]
) -> list[InterventionResult]:
    """The results `asked` for, then all others in `output`; only those with all measures.

    Other results are left out if their LM has another dtype than those asked for, or their features come from the same
    SAEs by other rules of analysis.
    """
    results = {result.folder.name: result for result in asked}
    dtypes = {result.identity["lm"]["dtype"] for result in results.values()}
    known = [result.axes for result in results.values() if "sae" in result.axes]
    rules = {(axes["model"], axes["sae"]): axes["rules"] for axes in known}
    for file in sorted((output / "rows").glob(f"*/{FILE}")):
        result = InterventionResult(file.parent, **json.loads(file.read_text(encoding="utf-8")))
        axes = result.axes
        if dtypes and result.identity["lm"]["dtype"] not in dtypes:
            continue
        if rules.get((axes["model"], axes.get("sae")), axes.get("rules")) == axes.get("rules"):
            results.setdefault(file.parent.name, result)
    return [result for result in results.values() if all(map(result.has, result.measures(measures)))]
