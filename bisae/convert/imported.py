"""Turn SAEs of other libraries into cells."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import xxhash

from bisae.cells.cell import Cell
from bisae.cells.recipe import READING
from bisae.config.choices import layers_of
from bisae.convert.fit_to_lm import Sample
from bisae.convert.hook import read_of
from bisae.convert.source import Foreign
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder, Weights

log = logging.getLogger("bisae.convert")


@dataclass(frozen=True, eq=False)
class Imported:
    """An SAE of another library that reads the LM at `layer`. `name` stands in its cell's folder name."""

    foreign: Foreign
    lm: LMPass
    layer: int
    name: str

    @classmethod
    def of(cls, foreign: Foreign, lm: LMPass, layer: object, name: str) -> "Imported":
        """Find the layer that an SAE reads.

        Args:
            foreign: the SAE.
            lm: the LM, with the text to measure on.
            layer: 0: the embeddings; L: the output of block L; None: where the files say.
            name: of the SAE in its cell's folder name.

        Raises:
            Refused: the files name no layer, or another part of the block than the LM's `hook`, or LM and SAE differ
                in width.
        """
        if lm.d_model != foreign.sae.d_model:
            wide = f"is {lm.d_model} wide, but the SAE reads {foreign.sae.d_model}"
            raise Refused("model", lm.checkpoint.model, wide)
        if layer is None:
            if foreign.hook is None:
                raise Refused("layer", None, "the files do not say where the SAE reads; give its layer")
            read, hook = read_of(foreign.hook), lm.checkpoint.hook
            if read.part != hook and not (read.part and read.part in (hook or "")):
                remedy = f"the files say {foreign.hook}; give the part of a block it is, or layer=... to overrule them"
                raise Refused("hook", hook, remedy)
            layer = read.layer
        (checked,) = layers_of([layer], lm.depth)
        return cls(foreign, lm, checked, name)

    def cell(self, runs: Path) -> Cell:
        """The SAE's cell, identified by its weights and the LM's settings, since its training text is unknown."""
        sae, checkpoint, fingerprint = self.foreign.sae, self.lm.checkpoint, self.lm.fingerprint
        named = ("weights", "tokenizer", "hook", "ids", "languages", *READING)
        read = {key: fingerprint[key] for key in named if key in fingerprint}
        identity = {"layer": self.layer, "sae": sae.arguments, "imported": digest(sae), "activations": read}
        return Cell(runs, checkpoint.model, checkpoint.step, self.layer, self.name, identity)

    def check(self, tokens: int, most_fvu: float) -> Mapping[str, float]:
        """Measure the SAE at its layer and at all others, and warn if it fits another layer better.

        Args:
            tokens: least number of tokens to measure on.
            most_fvu: the largest fraction of variance unexplained that is accepted.

        Returns:
            The metrics at its layer.

        Raises:
            Refused: the FVU at its layer is above `most_fvu`.
        """
        layers = range(1 if self.lm.checkpoint.hook else 0, self.lm.depth + 1)
        sample = Sample.of(self.lm, layers, tokens)
        quality = {layer: sample.quality(self.foreign.sae, layer) for layer in sample.streams}
        fvu = {layer: metrics["fvu"] for layer, metrics in quality.items()}
        best = min(fvu, key=lambda layer: fvu[layer])
        finding = f"FVU {fvu[self.layer]:.4g} at layer {self.layer} on {len(sample.language)} tokens"
        if best != self.layer:
            finding += f", lower at layer {best}: {fvu[best]:.4g}"
        if self.foreign.hook:
            finding += f"; the files say {self.foreign.hook}"
        if not fvu[self.layer] <= most_fvu:  # NaN too
            raise Refused("layer", self.layer, f"{finding}; more than most_fvu={most_fvu}: another model or layer?")
        log.log(logging.INFO if best == self.layer else logging.WARNING, "%s", finding)
        return quality[self.layer]


def digest(sae: SparseAutoencoder) -> str:
    """A checksum of an SAE's weights and thresholds."""
    checksum = xxhash.xxh3_128()
    thresholds = (value for name, value in sae.state_dict().items() if name not in Weights._fields)
    for tensor in (*sae.weights, *thresholds):
        checksum.update(tensor.detach().cpu().contiguous().numpy().data)
    return checksum.hexdigest()
