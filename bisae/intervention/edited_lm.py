"""An LM under one edit as an object: steering, ablation or a donor's features for other programs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.config.instantiate import instantiate
from bisae.edits.operation import Edit
from bisae.edits.patched_lm import DonorReader, patched
from bisae.intervention.donor import check_pair
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.specs import (
    PLAIN,
    RANDOM,
    SELF,
    SHUFFLED,
    STEER,
    SWAP,
    EditSettings,
    InterventionSpec,
    planned,
)
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.generation import greedy, written
from bisae.runtime.device import torch_device, torch_dtype
from bisae.runtime.errors import Refused


@dataclass(frozen=True, eq=False)
class EditedLM:
    """An LM whose residual stream is edited in every forward pass, also while it generates.

    Greedy search, sampling and beam search give what they give without a key-value cache. Ways of generating that take
    tokens back (assisted generation) are refused with a donor's features.

    Attributes:
        lm: the LM; it is plain outside `edited`, `generate` and calls.
        edits: the edit at each layer, as `bisae.edits.patched_lm.patched` takes them; none: the plain LM.
        donor: reads what the LM reads, for edits with a donor's features.
        hook: edit the output of this part of each layer's block instead of the residual stream.
    """

    lm: PreTrainedModel
    tokenizer: Any
    edits: Mapping[int, Edit]
    donor: DonorReader | None = None
    hook: str | None = None

    @classmethod
    def of(
        cls,
        cell: str | Path,
        kind: str | int | Sequence[int],
        mode: str = "ablate",
        coefficient: float | int = 1.0,
        step: int | str | None = None,
        norm: str = "donor",
        cache: str | Path = "cache",
        dtype: str = "float32",
        device: str = "cpu",
    ) -> "EditedLM":
        """Edit an LM by features of an analysed cell.

        Args:
            cell: the cell's folder, or what else `bisae.find_cells` takes in `runs`.
            kind: `none` (the plain LM), a kind as in intervene.py (`en`, `bi`, `aligned` ...), a feature's number, or
                several, [3, 17] or "3+17".
            mode: `ablate`, `scale`, `steer`, or, with features of the cell's LM, `add` and `replace`.
            coefficient, norm: as in intervene.py.
            step: the LM that is edited, a step of the cell's LM or `final`; None: the cell's own.
            cache: folder of unpacked LMs.

        Raises:
            Refused: no or several cells, a cell without features, an unknown kind, mode, norm or step; an edit that
                changes nothing, unless the kind is `none`.
        """
        cells = find_cells(str(cell), Path("runs"))
        if len(cells) != 1:
            raise Refused("cell", cell, f"names {len(cells)} cells, as {cells[0].name} and {cells[1].name}; name one")
        recipe = Recipe.of(cells[0], None, None, Path(cache))
        donor, own = recipe.checkpoint, torch_device(device)
        lm = donor if step is None else instantiate(recipe.model, "model").checkpoint(step)
        check_pair(donor, lm)
        layers = {cells[0].layer: LayerFeatures.read(cells[0], own)}
        if mode == SWAP:
            raise Refused("mode", mode, "needs the text with another word in it: python intervene.py mode=swap")
        edit = EditSettings(mode, norm, [float(coefficient)])
        controls = {RANDOM: 0, SHUFFLED: False, SELF: False}
        _, *specs = planned(layers, recipe.corpus.languages, edit, _kinds(kind), controls, None, 0)
        if len(specs) > 1:
            raise Refused("kind", kind, f"stands for {', '.join(one.kind for one in specs)}; name one")
        spec = specs[0] if specs else PLAIN
        if spec.chosen:
            _check_changes(spec, layers, kind)
        precision = torch_dtype(dtype)
        reader = None if spec.alone or not spec.chosen else DonorReader(donor, list(layers), precision, own)
        edits = spec.edits(layers, lambda layer, chosen: 1.0)
        return cls(load_causal_lm(lm, precision, own), donor.load_tokenizer(), edits, reader, donor.hook)

    @contextmanager
    def edited(self) -> Iterator[PreTrainedModel]:
        """Context in which `lm` itself runs edited."""
        special = {bos for bos in [self.tokenizer.bos_token_id] if bos is not None}
        with patched(self.lm, self.edits, self.donor, special, self.hook):
            yield self.lm

    def __call__(self, **inputs: Any) -> Any:
        """What `lm(**inputs)` gives under the edit, with `logits` [sequence, position, vocabulary]."""
        with torch.no_grad(), self.edited() as lm:
            return lm(**inputs)

    def generate(self, **inputs: Any) -> Any:
        """What `lm.generate(**inputs)` gives under the edit; greedy unless `generation_config` says otherwise."""
        with self.edited() as lm:
            generate: Any = lm.generate
            return generate(**inputs)

    def answer(self, prompt: str, max_new_tokens: int = 40, beams: int = 1) -> str:
        """The continuation of a text, without the text, by greedy search or with several `beams`."""
        config: GenerationConfig = greedy(self.tokenizer, max_new_tokens)
        config.num_beams = beams
        bos = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        ids = torch.tensor([bos + self.tokenizer(prompt, add_special_tokens=False).input_ids], device=self.lm.device)
        (row,) = self.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return written(self.tokenizer, row[ids.shape[1] :].tolist())


def _check_changes(spec: InterventionSpec, layers: Mapping[int, LayerFeatures], kind: object) -> None:
    """Refuse an edit under which the LM would be the plain one, and pass for edited."""
    chosen = [layers[layer].table[of_layer] for layer, of_layer in spec.chosen.items()]
    plain = "the LM would be the plain one, which is kind=none"
    if not any(map(len, chosen)):
        raise Refused("kind", kind, f"the cell has no such feature: {plain}")
    if spec.mode == STEER and not any((table["maximum"] > 0).any() for table in chosen):
        raise Refused("kind", kind, f"never fires on the analysed text, so there is no strength to steer at: {plain}")
    if spec.mode == "scale" and spec.coefficient == 1:
        raise Refused("coefficient", spec.coefficient, f"mode=scale multiplies features by it: {plain}")


def _kinds(kind: str | int | Sequence[int]) -> list[Any]:
    if isinstance(kind, str) and all(part.isdecimal() for part in kind.split("+")):
        return [[int(number) for number in kind.split("+")]]
    return [kind] if isinstance(kind, str) else [[kind]] if isinstance(kind, int) else [list(kind)]
