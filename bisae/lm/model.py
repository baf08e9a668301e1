"""Find the checkpoint of an LM: from names in the config to weights on disk."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bisae.lm.fetch import fetch
from bisae.lm.step_names import STEP, check_listed, check_step, named
from bisae.lm.tokenizer import TextTokenizer, load_tokenizer
from bisae.lm.weight_files import parameter_count, weight_files
from bisae.runtime.atomic import atomic_folder
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum
from bisae.runtime.ranges import Count, Index, Name, Text

if TYPE_CHECKING:
    import torch

EMBEDDED = Path(__file__).parents[1] / "embedded"
FINAL = "final"
TOKENIZER_FILE = re.compile(r".*token.*\.json|vocab.*|merges.*|.*\.model")


@dataclass(frozen=True)
class Checkpoint:
    """One step of an LM's pre-training, as an ordinary Hugging Face folder.

    `EmbeddedModel.checkpoint` and `HuggingFaceModel.checkpoint` return one; loading the weights comes later.

    Args:
        weights, tokenizer: Checksums of the content, so that a moved folder is the same checkpoint.
        tokens_seen: Tokens that the LM was trained on until this step; None if the preset does not say.
        layers: Number of decoder blocks.
        d_model: Width of the residual stream.
        parameters: Number of parameters; None if only loading would tell.
        positions: Length in tokens of the longest sequence that the LM can read; None if its config does not say.
        hook: Path within each decoder block of the part whose output is read, such as `mlp`; None for the residual
            stream.
        tokenizer_folder: Folder of the tokenizer; None if it is `folder`.
    """

    predicts: ClassVar[bool] = True  # tokens: False for an LM that has activations only

    model: str
    step: int
    folder: Path
    weights: str
    tokenizer: str
    tokens_seen: int | None
    layers: int
    d_model: int
    trust_remote_code: bool = False
    parameters: int | None = None
    positions: int | None = None
    hook: str | None = None
    tokenizer_folder: Path | None = None

    @property
    def embeddings(self) -> int | None:
        """Number of token ids that the LM has embeddings for; None if its config does not say."""
        from transformers import AutoConfig  # slow to import, and a finished job needs none

        config = AutoConfig.from_pretrained(self.folder, trust_remote_code=self.trust_remote_code)
        return getattr(config.get_text_config(), "vocab_size", None)

    def load_tokenizer(self) -> TextTokenizer:
        """Return the LM's tokenizer. Raises Refused (`tokenizer`) if it gives ids that the LM has no embedding for."""
        return load_tokenizer(self.tokenizer_folder or self.folder, self.trust_remote_code, self.embeddings)

    def reader(self, layers: Sequence[int], dtype: "torch.dtype", device: "torch.device") -> Any:
        """Load the LM to read its activations at `layers`; see `bisae.lm.residual.ResidualReader`."""
        from bisae.lm.residual import ResidualReader  # slow to import, and a finished job needs none

        return ResidualReader(self, layers, dtype, device)

    def check_predicts(self) -> None:
        """Raises Refused (`model`) if the LM predicts no tokens."""
        if not self.predicts:
            raise Refused("model", self.model, "is planted: it has activations, but predicts no tokens")


def read_at(model: str, hook: str | None) -> str:
    """Return the LM's name in paths of cells: `model`, or `model@hook` if a part of its blocks is read.

    Raises Refused (`hook`) if `hook` cannot be the path of a part.
    """
    if hook is None:
        return model
    if not re.fullmatch(r"\w+(\.\w+)*", hook):
        raise Refused("hook", hook, "must be the path of a part of a decoder block, as self_attn or mlp")
    return f"{model}@{hook}"


def _step_number(step: object, steps: str) -> int | None:
    """Return `step` as a number, or None for "final"."""
    if step == FINAL:
        return None
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise Refused("checkpoint", step, f"give a step of the LM's pre-training or `final`; {steps}")
    return step


@dataclass(frozen=True)
class EmbeddedModel:
    """A shipped ladder of tiny LMs; a checkpoint is unpacked from int8 below `unpack_to` when first used.

    `family`: as of a `HuggingFaceModel`.
    """

    name: Name
    unpack_to: Text
    hook: Text | None = None  # cells of older versions have no hook and no family in their config
    family: Name | None = None

    def checkpoint(self, step: object) -> Checkpoint:
        file = EMBEDDED / "lm" / self.name / "ladder.json"
        if not file.is_file():
            shipped = sorted(ladder.parent.name for ladder in EMBEDDED.glob("lm/*/ladder.json"))
            raise Refused("name", self.name, f"no LM of this name is shipped; there are {', '.join(shipped)}")
        ladder = json.loads(file.read_text(encoding="utf-8"))
        shipped_steps = {int(number): entry for number, entry in ladder["checkpoints"].items()}
        number = _step_number(step, f"{self.name} has {sorted(shipped_steps)}")
        if number is None:
            number = max(shipped_steps)
        if number not in shipped_steps:
            raise Refused("checkpoint", step, f"{self.name} has the steps {sorted(shipped_steps)} and `final`")
        entry = shipped_steps[number]
        tokenizer = EMBEDDED / "tokenizer" / "tokenizer.json"
        folder = Path(self.unpack_to) / self.name / f"step{number:07d}-{entry['sha256'][:8]}"
        if not folder.exists():
            self._unpack(EMBEDDED / "lm" / entry["file"], entry["sha256"], ladder["config"], folder)
        return Checkpoint(
            model=read_at(self.name, self.hook),
            step=number,
            folder=folder,
            weights=entry["sha256"],
            tokenizer=hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
            tokens_seen=entry["tokens_seen"],
            layers=ladder["config"]["num_hidden_layers"],
            d_model=ladder["config"]["hidden_size"],
            parameters=parameter_count(weight_files(folder)),
            positions=ladder["config"]["max_position_embeddings"],
            hook=self.hook,
        )

    @staticmethod
    def _unpack(packed: Path, checksum: str, config: object, folder: Path) -> None:
        from bisae.lm.int8 import unpack_file

        if hashlib.sha256(packed.read_bytes()).hexdigest() != checksum:
            raise ValueError(f"{packed} is damaged: its checksum is not the one in ladder.json; reinstall bisae")
        try:
            with atomic_folder(folder) as temporary:
                unpack_file(packed, temporary / "model.safetensors")
                (temporary / "config.json").write_text(json.dumps(config), encoding="utf-8")
                for file in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(EMBEDDED / "tokenizer" / file, temporary)
        except OSError:
            if not folder.exists():  # another process was first: its folder is the same
                raise


@dataclass(frozen=True)
class HuggingFaceModel:
    """Any causal LM, from a hub repository or a local folder.

    A local folder that names its step (in its name, recipe.json or trainer_state.json) must hold the requested step.

    Args:
        path, revision: Templates. `%d` or `%07d` becomes the checkpoint's step divided by `step_unit`, `%b` the
            billions of tokens seen until then. So each step is another folder, repository or revision.
        final_path: Folder or repository of the step `final`, if `path` is a template.
        final_step: Number of the step `final`.
        layers, d_model: Expected numbers of decoder blocks and dimensions; None to take those of config.json.
        steps: Steps that can be requested: numbers and [first, last, every]; None for any step.
        tokenizer: Folder or repository of the tokenizer, if it is not with the LM.
        family: Name shared by LMs that differ in their seed only; None: the LM's own name.
    """

    name: Name
    path: Text
    revision: str | None
    step_unit: Count
    final_path: str | None
    final_step: Index | None
    tokens_per_step: Count | None
    layers: Count | None
    d_model: Count | None
    trust_remote_code: bool
    hook: Text | None = None
    steps: Sequence[Any] | None = None
    tokenizer: Text | None = None
    family: Name | None = None

    def checkpoint(self, step: object) -> Checkpoint:
        number = _step_number(step, "as in the names of the model's checkpoints")
        template = STEP.search(self.path) or STEP.search(self.revision or "")
        if number is None and self.final_step is None:
            raise Refused("final_step", None, "give the step of `final`, which names the folder of its cells")
        if number is None and not self.final_path and template:
            raise Refused("final_path", None, "give where `final` lies, or ask for a step")
        if number is not None and not template and number != self.final_step:
            raise Refused(
                "path", self.path, f"has no %d or %07d, so step {number} would load the same weights as any other"
            )
        if number is not None:
            check_listed(number, self.steps)
        actual = self.final_step if number is None else number
        assert actual is not None
        source, revision = self.path, self.revision or ""
        if number is None and self.final_path:
            source, revision = self.final_path, ""
        if STEP.search(source + revision) and actual % self.step_unit:
            raise Refused("checkpoint", step, f"must be a multiple of step_unit={self.step_unit}")
        source, revision = (named(text, actual, self.step_unit, self.tokens_per_step) for text in (source, revision))
        folder = Path(source).expanduser()
        if folder.is_dir():
            if revision:
                raise Refused("revision", revision, f"{source} is a local folder, which has no revisions")
            check_step(folder, actual, actual // self.step_unit)
        elif folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
            raise Refused("checkpoint", step, f"no folder {source}; give the path of the checkpoints")
        else:
            folder = fetch(source, revision or None, self.trust_remote_code)
        return self._describe(actual, folder)

    def _describe(self, step: int, folder: Path) -> Checkpoint:
        """Describe a folder without loading its weights. Raises Refused (`path`) if it is not a whole checkpoint."""
        from safetensors import SafetensorError
        from transformers import AutoConfig

        weights = weight_files(folder)
        lacking = [file.name for file in (folder / "config.json", *weights) if not file.is_file()]
        if lacking or not weights:
            raise Refused("path", folder, f"lacks {lacking or '*.safetensors or pytorch_model*.bin weights'}")
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
            parameters = parameter_count(weights)
        except (OSError, ValueError, SafetensorError) as error:
            raise Refused("path", folder, f"cannot be read: {error}") from error
        layers, d_model, positions = _shape(config, folder)
        for name, actual in (("layers", layers), ("d_model", d_model)):
            if getattr(self, name) not in (None, actual):
                raise Refused("path", folder, f"has {name} {actual}, not {name}={getattr(self, name)}")
        code = sorted(folder.glob("*.py")) if self.trust_remote_code else []
        separate = None if self.tokenizer is None else Path(self.tokenizer).expanduser()
        if separate and not separate.is_dir():
            if separate.exists() or separate.is_absolute() or str(self.tokenizer).startswith((".", "~")):
                raise Refused("tokenizer", self.tokenizer, "no such folder; give the one of tokenizer.json")
            separate = fetch(str(self.tokenizer), None, self.trust_remote_code, "tokenizer")
        return Checkpoint(
            model=read_at(self.name, self.hook),
            step=step,
            folder=folder,
            weights=checksum([*weights, *code, folder / "config.json"]),
            tokenizer=checksum([f for f in sorted((separate or folder).iterdir()) if TOKENIZER_FILE.fullmatch(f.name)]),
            tokens_seen=None if self.tokens_per_step is None else step * self.tokens_per_step,
            layers=layers,
            d_model=d_model,
            trust_remote_code=self.trust_remote_code,
            parameters=parameters,
            positions=positions,
            hook=self.hook,
            tokenizer_folder=separate,
        )


def _shape(config: Any, folder: Path) -> tuple[int, int, int | None]:
    """Return layers, width and positions of the text decoder; a model that reads pictures has other parts too.

    Raises Refused (`path`) if the configuration alone shows that the LM cannot be read. Other faults are measured when
    the LM is loaded (`bisae.lm.loading`).
    """
    if config.is_encoder_decoder:
        raise Refused("path", folder, f"not a decoder-only LM: {config.model_type} has an encoder too")
    text = config.get_text_config(decoder=True)
    for part in (config, text):
        if quantised := getattr(part, "quantization_config", None):
            how = quantised.get("quant_method", "") if isinstance(quantised, dict) else quantised.quant_method
            remedy = "give the LM as it was before, in float32, bfloat16 or float16"
            raise Refused("path", folder, f"is quantised ({getattr(how, 'value', how)}): {remedy}")
    layers, d_model = (getattr(text, key, None) for key in ("num_hidden_layers", "hidden_size"))
    if not isinstance(layers, int) or not isinstance(d_model, int):
        raise Refused("path", folder, f"not a decoder-only LM: {config.model_type} names no layers or width")
    return layers, d_model, getattr(text, "max_position_embeddings", None)
