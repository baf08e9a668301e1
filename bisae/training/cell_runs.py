"""What the run of a cell is called, and what its config says."""

import os
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from bisae.cells.cell import Cell
from bisae.cells.find import FoundCell
from bisae.lm.model import Checkpoint

NAMED = ("latents", "k", "lr", "seed")  # settings of an SAE that are axes of the study


def run_name(cell: Cell | FoundCell, settings: Mapping[str, Any]) -> str:
    """A name for people: LM, step, layer, SAE, its settings, and the beginning of the cell's hash.

    The class stands behind the name of the SAE where the two differ, as in `topk TritonTopK`.
    """
    kind = str(settings.get("_target_", "")).rpartition(".")[2]
    kinds = [] if kind.lower() == cell.sae.replace("_", "").lower() else [kind]
    short = {"k": "k", "n": "latents", "lr": "lr", "seed": "seed"}
    given = [f"{mark}{settings[key]:g}" for mark, key in short.items() if settings.get(key) is not None]
    kinds += [settings["baseline"]] if settings.get("baseline") else []
    return " ".join([cell.model, f"step{cell.step}", f"layer{cell.layer}", cell.sae, *kinds, *given, cell.hash[:6]])


def lm_axes(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `axes` says of the LM."""
    about = {"parameters": checkpoint.parameters, "d_model": checkpoint.d_model}
    return {**about, "lm_tokens": checkpoint.tokens_seen}


def axes(
    cell: Cell | FoundCell, settings: Mapping[str, Any], lm: Mapping[str, Any], job: str | None = None
) -> dict[str, Any]:
    """The axes of a cell's run, flat: what dashboards key on. None stands for what is not known.

    Args:
        cell: the cell.
        settings: config group `sae` with one value a key.
        lm: `lm_axes` of the LM's checkpoint.
        job: the key of the job that trains it. `sweep` is WANDB_RUN_GROUP, which a sweep sets for its jobs.
    """
    others = settings.keys() - {"_target_", "name", *NAMED}
    return {
        "model": cell.model,
        "parameters": lm["parameters"],
        "d_model": lm["d_model"],
        "step": cell.step,
        "lm_tokens": lm["lm_tokens"],
        "layer": cell.layer,
        "sae": cell.sae,
        **{key: settings.get(key) for key in NAMED},
        **{f"sae_{key}": settings[key] for key in sorted(others)},
        "job": job,
        "sweep": os.environ.get("WANDB_RUN_GROUP") or None if job else None,
        "cell": cell.name,
        "folder": str(cell.folder.resolve()),
    }


def own_config(config: str, cell: Cell | FoundCell, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config of a job (YAML) as that of one cell: its layer and its SAE, a value a key."""
    tree: Any = OmegaConf.to_container(OmegaConf.create(config))
    return {**tree, "layer": cell.layer, "sae": {**tree.get("sae", {}), **settings}}
