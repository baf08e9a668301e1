"""Interventions on disk: `<output>/rows/<hash>/`, what each is and what was measured of it."""

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
    """`axes` are what the table says of it, `identity` is everything that changes what is measured."""

    folder: Path
    axes: Mapping[str, Any]
    identity: Mapping[str, Any]

    @classmethod
    def planned(
        cls,
        output: Path,
        setting: InterventionSpec,
        recipient: Checkpoint,
        donor: Checkpoint,
        layers: Mapping[int, LayerFeatures],
        text: str,
        dtype: str,
    ) -> "InterventionResult":
        """The row of a setting; `none` is the same whatever the donor. `text` names what strength is measured on."""
        lm = {"weights": recipient.weights, "tokenizer": recipient.tokenizer, "dtype": dtype}
        axes: dict[str, Any] = {"model": recipient.model, "recipient": recipient.step}
        identity: dict[str, Any] = {"lm": lm, "kind": setting.kind}
        if setting is not PLAIN:
            same: dict[str, Any] = {
                "control": setting.control,
                "seed": setting.seed,
                "mode": setting.mode,
                "norm": setting.norm,
            }
            same["coefficient"] = None if np.isnan(setting.coefficient) else setting.coefficient
            if setting.like is not None:
                identity["strength"] = text
            identity |= same | {"donor": None if setting.alone else donor.weights}
            identity["layers"] = {
                str(layer): {
                    "sae": layers[layer].checksum,
                    "chosen": mark(chosen),
                    "like": setting.like and mark(setting.like[layer]),
                }
                for layer, chosen in setting.chosen.items()
            }
            axes |= {
                "donor": donor.step,
                "layers": "+".join(map(str, layers)),
                "sae": "+".join(f"{one.cell.sae}-{one.cell.hash}" for one in layers.values()),
                "rules": "+".join(sorted({one.rules for one in layers.values()})),
                "limit": setting.limit,
                "features": int(sum(map(np.count_nonzero, setting.chosen.values()))),
            }
            axes |= {key: value for key, value in same.items() if key != "rules"}
            if setting.control == RANDOM:
                axes |= {"drawn_from": setting.drawn_from, "widening": setting.widening}
        axes |= {"kind": setting.kind, "control": setting.control}
        return cls(output / "rows" / name_of(identity), axes, identity)

    def has(self, measure: Measure) -> bool:
        return (self.folder / FILE).is_file() and (self.folder / file_name(measure)).is_file()

    def keep(self, measure: Measure, table: pd.DataFrame, change: Mapping[str, float]) -> None:
        """Write what was measured; `change` says how much the intervention changed the stream meanwhile."""
        if not (self.folder / FILE).is_file():
            write_json(self.folder / FILE, {"axes": self.axes, "identity": self.identity})
        table.attrs = dict(change)
        with atomic_file(self.folder / file_name(measure)) as temporary:
            table.to_parquet(temporary)

    def read(self, measure: Measure) -> pd.DataFrame:
        return pd.read_parquet(self.folder / file_name(measure))

    def measures(self, asked: Iterable[Measure]) -> list[Measure]:
        """Those asked for, or what is left of them where only that was measured: of most draws of a random control."""
        if self.axes["control"] != RANDOM:
            return list(asked)
        left = (one if self.has(one) else one.unwritten for one in asked)
        return [one for one in left if one is not None]


def measured_results(
    output: Path, measures: Iterable[Measure], asked: Iterable[InterventionResult]
) -> list[InterventionResult]:
    """Those asked for first, then all in `output` of which everything has been measured.

    Of the others, those of the same SAEs by other rules of analysis, or of LMs in another dtype, than the rows asked
    for are left out.
    """
    rows = {row.folder.name: row for row in asked}
    dtypes = {row.identity["lm"]["dtype"] for row in rows.values()}
    rules = {(row.axes["model"], row.axes["sae"]): row.axes["rules"] for row in rows.values() if "sae" in row.axes}
    for file in sorted((output / "rows").glob(f"*/{FILE}")):
        row = InterventionResult(file.parent, **json.loads(file.read_text(encoding="utf-8")))
        axes = row.axes
        if dtypes and row.identity["lm"]["dtype"] not in dtypes:
            continue
        if rules.get((axes["model"], axes.get("sae")), axes.get("rules")) == axes.get("rules"):
            rows.setdefault(file.parent.name, row)
    return [row for row in rows.values() if all(map(row.has, row.measures(measures)))]
