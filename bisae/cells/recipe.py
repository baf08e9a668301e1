"""Read back from a cell's `config.yaml` how it was made: the LM at its step, the corpus and the LM pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bisae.cells.find import FoundCell
from bisae.config.instantiate import instantiate
from bisae.config.objects import check_object
from bisae.corpus.corpus import Corpus
from bisae.corpus.pairs import Sentences
from bisae.lm.lm_pass import LMPass, PairPass
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused
from bisae.sae.store import saved_arguments

# A cell may come from anybody: only these classes are made from its config, whatever else `_target_` names.
KNOWN = {
    "model": (
        "bisae.lm.model.EmbeddedModel",
        "bisae.lm.model.HuggingFaceModel",
        "bisae.planted.model.PlantedModel",
    ),
    "corpus": (
        "bisae.corpus.embedded.EmbeddedCorpus",
        "bisae.corpus.jsonl.JsonlCorpus",
        "bisae.corpus.hub.HubCorpus",
        "bisae.planted.corpus.PlantedCorpus",
    ),
}
READING = ("context", "shortest", "lm_batch", "shard_batches", "lm_dtype")


@dataclass(frozen=True, eq=False)
class Recipe:
    """The LM and the text of a cell.

    Args:
        model: Config node of the LM.
        reading: Arguments of `LMPass` that are part of the cell's identity.
        findings: See `bisae.lm.pass_settings.PassSettings`.
    """

    cell: FoundCell
    model: Mapping[str, Any]
    corpus: Corpus
    reading: Mapping[str, Any]
    findings: Path | None = None

    @classmethod
    def of(cls, cell: FoundCell, model: Any, corpus: Any, cache: Path) -> "Recipe":
        """Read the recipe of a cell.

        Args:
            model, corpus: Config nodes that replace the cell's own; None to use those.
            cache: Folder of unpacked LMs and of findings about tokenizers.

        Raises:
            Refused: `model` or `corpus` of the cell is of an unknown class, or the cell (`cells`) cannot be read.
        """
        config = _config(cell)
        chosen = dict(model or _known(config, "model", cell))
        if not model and chosen.get("trust_remote_code"):  # only the user may allow this, not the cell
            remedy = f"is what {cell.folder}/config.yaml says; give model=... here to run code that comes with an LM"
            raise Refused("trust_remote_code", True, remedy)
        if "unpack_to" in chosen:
            chosen["unpack_to"] = str(cache / "lm")
        corpus = dict(corpus or _known(config, "corpus", cell))
        for group, node in (("model", chosen), ("corpus", corpus)):
            check_object(group, node)  # the model's name is part of a path
        try:
            reading = {key: cell.identity["activations"][key] for key in READING}
        except KeyError as error:
            raise Refused("cells", cell.folder, f"is no cell of this version: its identity lacks {error}") from error
        return cls(cell, chosen, instantiate(corpus, "corpus"), reading, cache / "tokenizers")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The LM's checkpoint. Raises Refused (`model`) if weights, tokenizer or hook are not the SAE's own."""
        checkpoint: Checkpoint = instantiate(self.model, "model").checkpoint(self.cell.step)
        for what in ("weights", "tokenizer", "hook"):
            if getattr(checkpoint, what) != self.cell.identity["activations"].get(what):
                remedy = f"has other {what} than the SAE in {self.cell.folder} was trained on"
                raise Refused("model", checkpoint.folder, remedy)
        return checkpoint

    def text(self, split: str) -> dict[str, Any]:
        """Return the settings that identify the LM's activations on `split`, without loading the LM."""
        trained_on = self.cell.identity["activations"]
        lm = {key: trained_on[key] for key in ("weights", "tokenizer", "hook", "ids") if key in trained_on}
        return {**lm, "corpus": self.corpus.checksum(split), **self.reading}

    def other_checkpoint(self, step: object) -> Checkpoint:
        """Another step of the LM, or of the `model` in its place. Refused if the SAE cannot read that LM."""
        checkpoint: Checkpoint = instantiate(self.model, "model").checkpoint(step)
        cell, width = self.cell, saved_arguments(self.cell.folder)["d_model"]
        for field, found, needed in (
            ("model", f"{checkpoint.model}, {checkpoint.d_model} wide", checkpoint.d_model == width),
            ("model", f"{checkpoint.model}, {checkpoint.layers} layers", cell.layer <= checkpoint.layers),
            ("hook", checkpoint.hook, checkpoint.hook == cell.hook),
        ):
            if not needed:
                reads = f"{cell.hook or 'the stream'} at layer {cell.layer}, {width} wide"
                raise Refused(field, found, f"the SAE in {cell.folder} reads {reads}")
        return checkpoint

    def lm_pass(self, split: str, device: str, checkpoint: Checkpoint | None = None) -> LMPass:
        """Return the LM pass over `split` of the corpus, by the cell's checkpoint unless another is given."""
        read = checkpoint or self.checkpoint
        return LMPass(read, self.corpus, split, **self.reading, device=device, findings=self.findings)

    def pair_pass(self, sentences: Sentences, device: str) -> PairPass:
        """Return the LM pass over sentence pairs, short ones too, in larger batches than documents."""
        reading = {**self.reading, "shortest": 1, "lm_batch": 8 * self.reading["lm_batch"]}
        return PairPass(self.checkpoint, sentences, "pairs", **reading, device=device, findings=self.findings)


def _config(cell: FoundCell) -> Mapping[str, Any]:
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(cell.folder / "config.yaml"), resolve=False)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:  # ValueError: no UTF-8
        raise Refused("cells", cell.folder, f"its config.yaml cannot be read: {error}") from error
    if not isinstance(config, Mapping):
        raise Refused("cells", cell.folder, "its config.yaml is no config")
    return config


def _known(config: Mapping[str, Any], group: str, cell: FoundCell) -> Any:
    node: Any = config.get(group)
    is_known = isinstance(node, Mapping) and node.get("_target_") in KNOWN[group] and _targets(node) == 1
    if not is_known or "${" in str(node):  # an interpolation may read the environment
        target = node.get("_target_") if isinstance(node, Mapping) else node
        raise Refused(group, target, f"in {cell.folder}/config.yaml is not one of bisae's; give {group}=... here")
    return node


def _targets(node: object) -> int:
    """Count the objects that a config node would make."""
    if isinstance(node, Mapping):
        return sum(map(_targets, node.values())) + ("_target_" in node)
    return sum(map(_targets, node)) if isinstance(node, list) else 0
