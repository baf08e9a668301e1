"""The donor of an intervention: one cell for each layer, and the LM checkpoint the cells were trained on."""

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
from bisae.intervention.layer_choice import AUTO, best_retrieval
from bisae.intervention.layer_features import LayerFeatures
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.runtime.subcommands import run_first
from bisae.sae import SparseAutoencoder
from bisae.sae.store import class_name


@dataclass(frozen=True, eq=False)
class DonorCells:
    """The donor's cell at each layer, of one LM checkpoint; `recipe` names the LM and corpus they were made from.

    `layer_by`: what the layer was chosen by, in words; "": it was given.
    """

    recipe: Recipe
    cells: Mapping[int, FoundCell]
    layer_by: str = ""

    @classmethod
    def choose(
        cls,
        cells: Sequence[FoundCell],
        model: str | None,
        step: object,
        sae: str | None,
        layer: object,
        nodes: tuple[Any, Any, Path],
        retrieval: Path,
    ) -> "DonorCells":
        """Choose one cell for each layer.

        Args:
            cells: all cells found.
            model: the donor LM's name; None if the cells have only one.
            step: the donor's checkpoint, a step or `final`.
            sae: a part of `<name>-<hash>` that singles out one SAE of a layer; None if a layer has only one.
            layer: a layer, a list of layers, `all`, or `auto` (`bisae.intervention.layer_choice`).
            nodes: config nodes of model and corpus that replace the cells' own, or None, and the cache (`Recipe.of`).
            retrieval: table of analyze.py by which `auto` chooses.

        Raises:
            Refused: no cell fits, or several do; the message lists what there is.
        """
        models = sorted({cell.model for cell in cells})
        if model is None and len(models) > 1:
            raise Refused("model", None, f"name one: the cells are of {', '.join(models)}")
        mine = [cell for cell in cells if model in (None, cell.model)]
        if not mine:
            raise Refused("model", model, f"no cell of it; they are of {', '.join(models)}")
        # Each cell's recipe names all checkpoints of the LM.
        checkpoint = instantiate(Recipe.of(mine[0], *nodes).model, "model").checkpoint(step)
        checkpoint.check_predicts()
        chosen, by = {}, ""
        if layer == AUTO:
            layer, by = best_retrieval(retrieval, checkpoint.model, checkpoint.step, checkpoint.layers)
        for number in layers_of(layer, checkpoint.layers):
            here = [cell for cell in mine if (cell.step, cell.layer) == (checkpoint.step, number)]
            if not here:
                there = ", ".join(f"{at}/{below}" for at, below in sorted({(cell.step, cell.layer) for cell in mine}))
                remedy = f"no SAE of it at step {checkpoint.step}; there are (step/layer) {there}; train.py makes more"
                raise Refused("layer", number, remedy)
            fitting = [cell for cell in here if sae is None or sae in f"{cell.sae}-{cell.hash}"]
            if len(fitting) != 1:
                names = ", ".join(f"{cell.sae}-{cell.hash}" for cell in here)
                raise Refused("sae", sae, f"layer {number} has {len(here)} SAEs: name one of {names}")
            chosen[number] = fitting[0]
        first = next(iter(chosen.values()))
        return cls(Recipe.of(first, *nodes), chosen, by)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return self.recipe.checkpoint

    @cached_property
    def tokenizer(self) -> Any:
        return self.checkpoint.load_tokenizer()

    def recipient(self, asked: int | str, cells: Sequence[FoundCell], cache: Path) -> Checkpoint:
        """The checkpoint to change; Refused if there is none, or it does not fit the donor.

        Args:
            asked: a step of the donor's LM, or `<model>/<step>` of another LM.
            cells: all cells found; those of another LM say what it is.
            cache: folder of unpacked LMs.
        """
        name, _, step = asked.rpartition("/") if isinstance(asked, str) else ("", "", asked)
        node = self.recipe.model
        if name and name != self.checkpoint.model:
            theirs = [cell for cell in cells if cell.model == name]
            if not theirs:
                models = ", ".join(sorted({cell.model for cell in cells}))
                remedy = f"no cell of {name}, which would say what LM that is; they are of {models}"
                raise Refused("recipient", asked, remedy)
            node = Recipe.of(theirs[0], None, None, cache).model
        try:
            step = int(step) if isinstance(step, str) and step.isdecimal() else step
            recipient: Checkpoint = instantiate(node, "model").checkpoint(step)
        except Refused as error:
            raise Refused("recipient", asked, error.remedy) if error.field == "checkpoint" else error from None
        check_pair(self.checkpoint, recipient)
        return recipient

    def features(
        self,
        analyze: Sequence[str] | None,
        cache: Path,
        device: torch.device,
        classes: Sequence[type[SparseAutoencoder]] = (),
    ) -> dict[int, LayerFeatures]:
        """Read the features of each layer, and analyse cells that have none yet.

        Args:
            analyze: overrides of analyze.py for these cells; None refuses cells without features.
            cache: folder of unpacked LMs.
            device: where the SAEs are loaded.
            classes: SAE classes that cells may have besides bisae's own.
        """
        if analyze is not None:
            shared = [f"cache={cache}", f"sae_classes=[{','.join(map(class_name, classes))}]"]
            for cell in self.cells.values():
                if not (cell.folder / FEATURES).is_file():
                    run_first("analyze.py", [[*analyze, f"runs={cell.folder}", "output=null"]], shared)
        return {layer: LayerFeatures.read(cell, device, classes) for layer, cell in self.cells.items()}


def check_pair(donor: Checkpoint, recipient: Checkpoint) -> None:
    """Refuse two checkpoints that differ in tokenizer, width or hook."""
    for name in ("tokenizer", "d_model", "hook"):
        of_donor, of_recipient = getattr(donor, name), getattr(recipient, name)
        if of_donor != of_recipient:
            remedy = f"has the {name} {of_donor}, and {recipient.model} at step {recipient.step} has {of_recipient}"
            raise Refused("donor", f"{donor.model} at step {donor.step}", remedy)
