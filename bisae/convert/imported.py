"""SAEs of other libraries as cells."""

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
    """An SAE of another library that reads `lm` at `layer`; `name` is its cell's."""

    foreign: Foreign
    lm: LMPass
    layer: int
    name: str

    @classmethod
    def of(cls, foreign: Foreign, lm: LMPass, layer: object, name: str) -> "Imported":
        """`layer` None: the one the files name. Refused if they name none, or the LM is not as wide as the SAE."""
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
        (found,) = layers_of([layer], lm.depth)
        return cls(foreign, lm, found, name)

    def cell(self, runs: Path) -> Cell:
        """What it was trained on is not known, so its identity is its weights and how the LM reads here."""
        sae, checkpoint, fingerprint = self.foreign.sae, self.lm.checkpoint, self.lm.fingerprint
        named = ("weights", "tokenizer", "hook", "ids", "languages", *READING)
        read = {key: fingerprint[key] for key in named if key in fingerprint}
        identity = {"layer": self.layer, "sae": sae.arguments, "imported": digest(sae), "activations": read}
        return Cell(runs, checkpoint.model, checkpoint.step, self.layer, self.name, identity)

    def check(self, tokens: int, most_fvu: float) -> Mapping[str, float]:
        """The SAE's metrics at its layer; Refused for an FVU above `most_fvu`, a warning if another has less."""
        layers = range(1 if self.lm.checkpoint.hook else 0, self.lm.depth + 1)
        sample = Sample.of(self.lm, layers, tokens)
        quality = {layer: sample.quality(self.foreign.sae, layer) for layer in sample.streams}
        fvu = {layer: found["fvu"] for layer, found in quality.items()}
        best = min(fvu, key=lambda layer: fvu[layer])
        said = f"FVU {fvu[self.layer]:.4g} at layer {self.layer} on {len(sample.language)} tokens"
        if best != self.layer:
            said += f", lower at layer {best}: {fvu[best]:.4g}"
        if self.foreign.hook:
            said += f"; the files say {self.foreign.hook}"
        if not fvu[self.layer] <= most_fvu:  # NaN too
            raise Refused("layer", self.layer, f"{said}; more than most_fvu={most_fvu}: another model or layer?")
        log.log(logging.INFO if best == self.layer else logging.WARNING, "%s", said)
        return quality[self.layer]


def digest(sae: SparseAutoencoder) -> str:
    """A checksum of the weights, and of thresholds where there are."""
    found = xxhash.xxh3_128()
    thresholds = (value for name, value in sae.state_dict().items() if name not in Weights._fields)
    for tensor in (*sae.weights, *thresholds):
        found.update(tensor.detach().cpu().contiguous().numpy().data)
    return found.hexdigest()
