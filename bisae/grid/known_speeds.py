"""Speeds that need no measuring now: found by benchmarks/device.py on such a device, or arithmetic of its ceilings."""

import json
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import bisae
from bisae.grid.ladders import Ladder
from bisae.runtime.errors import Refused
from bisae.sae.kernels.choice import slug
from bisae.sae.kernels.paper import Ceilings, step_seconds
from bisae.training.flags import trainer_identity

RESULTS = Path(bisae.__file__).parents[1] / "benchmarks" / "results"
SCRIPT = "python benchmarks/device.py"


def read_results(name: str) -> tuple[Mapping[str, Any], str] | None:
    """(what benchmarks/device.py found, where from and when); None for a device that was not measured.

    Args:
        name: a path that ends in .json, which must be there, or the name of a device.

    Raises:
        Refused: `results`: the file is not there, cannot be read, or is of a smoke run.
    """
    of_file = name.endswith(".json")
    path = Path(name) if of_file else RESULTS / f"{slug(name)}.json"
    if not path.is_file():
        if of_file:
            raise Refused("results", name, f"{path} is not there; {SCRIPT} writes it on such a device")
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        stages, of = found["stages"], f"measured on {found['device']}, {found['measured']}"
        smoke = found["smoke"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("results", name, f"{path} is no result of {SCRIPT}: {error}") from error
    if smoke:
        raise Refused("results", name, f"{path} is of a smoke run, whose times mean nothing")
    return stages, of


def measured_lm(stages: Mapping[str, Any]) -> float | None:
    """Operations a second of the LM's forward pass, with the streams kept and copied."""
    rows = stages.get("caching", {}).get("rows", [])
    return max((1e12 * row["lm_tflops"] / row["copied_of_forward"] for row in rows), default=None)


def measured_sae(stages: Mapping[str, Any], ladder: Ladder) -> float | None:
    """Operations a second of a step, of the quickest backend that passed its gates, at the nearest size measured."""
    precision, batch, width = _precision(ladder), ladder.settings["data"]["batch"], ladder.shape.d_model
    gates = stages.get("gates", {}).get("rows", [])
    able = {(row["backend"], row["precision"]) for row in gates if row["passes"]}
    rows = [
        row
        for row in stages.get("steps", {}).get("rows", [])
        if "error" not in row and row["precision"] == precision and (row["backend"], precision) in able
    ]
    if not rows or not _is_topk(ladder):
        return None

    def away(row: Mapping[str, Any]) -> float:
        return abs(log(row["d_model"] / width)) + abs(log(row["batch"] / batch))

    nearest = min(map(away, rows))
    quickest = min((row for row in rows if away(row) == nearest), key=lambda row: row["step_seconds"])
    product: float = 2 * quickest["batch"] * quickest["latents"] * quickest["d_model"]
    return product / quickest["step_seconds"]


def sae_on_paper(ceilings: Ceilings, ladder: Ladder) -> float | None:
    """Operations a second of a step by arithmetic (`bisae.sae.kernels.paper`); None for SAEs that are not TopK."""
    if not _is_topk(ladder):
        return None
    batch, d_model, bf16 = ladder.settings["data"]["batch"], ladder.shape.d_model, _precision(ladder) != "32-true"
    products = sum(2 * batch * sae["latents"] * d_model for sae in ladder.saes)
    steps = (step_seconds(ceilings, batch, sae["latents"], d_model, sae["k"], bf16) for sae in ladder.saes)
    return products / sum(steps)


def _precision(ladder: Ladder) -> str:
    precision: str = trainer_identity(ladder.settings["trainer"], watched=False)["precision"]
    return precision


def _is_topk(ladder: Ladder) -> bool:
    return all("k" in sae and not sae.get("aux_k") for sae in ladder.saes)
