"""Whose features are put in: the donor's cells, one a layer, and the LM they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bisae.cells.cell import FEATURES
from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.config.choices import layers_of
from bisae.config.instantiate import instantiate
from bisae.intervention.layer_features import LayerFeatures
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.subcommands import run_first
from bisae.sae import SparseAutoencoder
from bisae.sae.store import class_name


@dataclass(frozen=True, eq=False)
class DonorCells:
    """The `cells` of one LM checkpoint by layer; `recipe` says which LM and corpus they were made from."""

    recipe: Recipe
    cells: Mapping[int, FoundCell]

    @classmethod
    def choose(
        cls,
        cells: Sequence[FoundCell],
        model: str | None,
        step: object,
        sae: str | None,
        layer: object,
        nodes: tuple[Any, Any, Path],
    ) -> "DonorCells":
        """Of `cells` the one of each layer; Refused with what there is where there is none, or several.

        `nodes`: model and corpus in place of the cells' own, or None, and the cache (see `Recipe.of`).
        """
        models = sorted({cell.model for cell in cells})
        if model is None and len(models) > 1:
            raise Refused("model", None, f"name one: the cells are of {', '.join(models)}")
        mine = [cell for cell in cells if model in (None, cell.model)]
        if not mine:
            raise Refused("model", model, f"no cell of it; they are of {', '.join(models)}")
        # Any of them knows where the LM's other checkpoints lie.
        checkpoint = instantiate(Recipe.of(mine[0], *nodes).model).checkpoint(step)
        chosen = {}
        for deep in layers_of(layer, checkpoint.layers):
            here = [cell for cell in mine if (cell.step, cell.layer) == (checkpoint.step, deep)]
            if not here:
                there = ", ".join(f"{at}/{on}" for at, on in sorted({(cell.step, cell.layer) for cell in mine}))
                remedy = f"no SAE of it at step {checkpoint.step}; there are (step/layer) {there}; train.py makes more"
                raise Refused("layer", deep, remedy)
            found = [cell for cell in here if sae is None or sae in f"{cell.sae}-{cell.hash}"]
            if len(found) != 1:
                names = ", ".join(f"{cell.sae}-{cell.hash}" for cell in here)
                raise Refused("sae", sae, f"layer {deep} has {len(here)} SAEs: name one of {names}")
            chosen[deep] = found[0]
        first = next(iter(chosen.values()))
        return cls(Recipe.of(first, *nodes), chosen)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return self.recipe.checkpoint

    @cached_property
    def tokenizer(self) -> Any:
        return self.checkpoint.load_tokenizer()

    def recipient(self, step: object) -> Checkpoint:
        """Another checkpoint of the same LM; Refused if there is none."""
        try:
            recipient: Checkpoint = instantiate(self.recipe.model).checkpoint(step)
        except Refused as error:
            raise Refused("recipient", step, error.remedy) if error.field == "checkpoint" else error from None
        check_pair(self.checkpoint, recipient)
        return recipient

    def features(
        self,
        analyze: Sequence[str] | None,
        cache: Path,
        device: torch.device,
        classes: Sequence[type[SparseAutoencoder]] = (),
    ) -> dict[int, LayerFeatures]:
        """The features of each layer. Cells that are not analysed are first, with `analyze` as overrides of
        analyze.py; Refused if it is None. `classes` besides bisae's the SAEs may be of."""
        if analyze is not None:
            shared = [f"cache={cache}", f"sae_classes=[{','.join(map(class_name, classes))}]"]
            for cell in self.cells.values():
                if not (cell.folder / FEATURES).is_file():
                    run_first("analyze.py", [[*analyze, f"runs={cell.folder}", "output=null"]], shared)
        return {layer: LayerFeatures.read(cell, device, classes) for layer, cell in self.cells.items()}


def check_pair(donor: Checkpoint, recipient: Checkpoint) -> None:
    """Refused unless both read the same tokens into streams of the same width."""
    for what in ("tokenizer", "d_model", "hook"):
        found, wanted = getattr(donor, what), getattr(recipient, what)
        if found != wanted:
            remedy = f"has the {what} {found}, and {recipient.model} at step {recipient.step} {wanted}"
            raise Refused("donor", f"{donor.model} at step {donor.step}", remedy)
