"""Which LM, at which checkpoint: from names in the config to weights on disk."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import xxhash

from bisae.atomic import atomic_folder
from bisae.errors import ConfigError
from bisae.hub import fetch
from bisae.lm.weight_files import parameter_count, weight_files

EMBEDDED = Path(__file__).parents[1] / "embedded"
FINAL = "final"
TOKENIZER_FILE = re.compile(r".*token.*\.json|vocab.*|merges.*|.*\.model")
STEP = re.compile(r"%0?\d*d")  # printf's, since braces mean something else on Hydra's command line


@dataclass(frozen=True)
class Checkpoint:
    """One step of an LM's pre-training, as an ordinary Hugging Face folder.

    `weights` and `tokenizer` are checksums of the content, so that a moved folder is the same checkpoint.
    `tokens_seen` by the LM at this step; None where the preset does not know. `parameters` of the LM; None where only
    loading would tell. `positions` is the longest sequence it takes; None where its config names none.
    """

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


def _step_number(step: object, steps: str) -> int | None:
    """`step` as a number, None for "final"."""
    if step == FINAL:
        return None
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ConfigError("checkpoint", step, f"give a step of the LM's pre-training or `final`; {steps}")
    return step


@dataclass(frozen=True)
class EmbeddedModel:
    """A shipped ladder of tiny LMs; a checkpoint is unpacked from int8 below `unpack_to` when first used."""

    name: str
    unpack_to: str

    def checkpoint(self, step: object) -> Checkpoint:
        file = EMBEDDED / "lm" / self.name / "ladder.json"
        if not file.is_file():
            shipped = sorted(ladder.parent.name for ladder in EMBEDDED.glob("lm/*/ladder.json"))
            raise ConfigError("model.name", self.name, f"no LM of this name is shipped; there are {', '.join(shipped)}")
        ladder = json.loads(file.read_text(encoding="utf-8"))
        known = {int(number): about for number, about in ladder["checkpoints"].items()}
        number = _step_number(step, f"{self.name} has {sorted(known)}")
        if number is None:
            number = max(known)
        if number not in known:
            raise ConfigError("checkpoint", step, f"{self.name} has the steps {sorted(known)} and `final`")
        about = known[number]
        tokenizer = EMBEDDED / "tokenizer" / "tokenizer.json"
        folder = Path(self.unpack_to) / self.name / f"step{number:07d}-{about['sha256'][:8]}"
        if not folder.exists():
            self._unpack(EMBEDDED / "lm" / about["file"], about["sha256"], ladder["config"], folder)
        return Checkpoint(
            model=self.name,
            step=number,
            folder=folder,
            weights=about["sha256"],
            tokenizer=hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
            tokens_seen=about["tokens_seen"],
            layers=ladder["config"]["num_hidden_layers"],
            d_model=ladder["config"]["hidden_size"],
            parameters=parameter_count(weight_files(folder)),
            positions=ladder["config"]["max_position_embeddings"],
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
    """Any causal LM by hub repository or local folder.

    `path` and `revision` are templates: `%d` or `%07d` stands for the checkpoint's step, counted in `step_unit`s, so
    that every step is another folder, repository or revision. `final_path` is where `final` lies if `path` is a
    template, `final_step` its number. A local folder that says which step it holds must hold the step asked for, and
    the LM must have the `layers` and `d_model` given, if any.
    """

    name: str
    path: str
    revision: str | None
    step_unit: int
    final_path: str | None
    final_step: int | None
    tokens_per_step: int | None
    layers: int | None
    d_model: int | None
    trust_remote_code: bool

    def checkpoint(self, step: object) -> Checkpoint:
        number = _step_number(step, "as in the names of the model's checkpoints")
        template = STEP.search(self.path) or STEP.search(self.revision or "")
        if number is None and self.final_step is None:
            raise ConfigError("model.final_step", None, "give the step of `final`, which names the folder of its cells")
        if number is None and not self.final_path and template:
            raise ConfigError("model.final_path", None, "give where `final` lies, or ask for a step")
        if number is not None and not template and number != self.final_step:
            raise ConfigError(
                "model.path", self.path, f"has no %d or %07d, so step {number} would load the same weights as any other"
            )
        actual = self.final_step if number is None else number
        assert actual is not None
        source, revision = self.path, self.revision or ""
        if number is None and self.final_path:
            source, revision = self.final_path, ""
        if STEP.search(source + revision) and actual % self.step_unit:
            raise ConfigError("checkpoint", step, f"must be a multiple of model.step_unit={self.step_unit}")
        in_names = actual // self.step_unit
        source, revision = (STEP.sub(lambda place: place[0] % in_names, text) for text in (source, revision))
        folder = Path(source).expanduser()
        if folder.is_dir():
            if revision:
                raise ConfigError("model.revision", revision, f"{source} is a local folder, which has no revisions")
            check_step(folder, actual, in_names)
        elif folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
            raise ConfigError("checkpoint", step, f"no folder {source}; model.path says where to look")
        else:
            folder = fetch(source, revision or None, self.trust_remote_code)
        return self._describe(actual, folder)

    def _describe(self, step: int, folder: Path) -> Checkpoint:
        """Read what can be known of a folder without loading it; ConfigError when it is not a whole checkpoint."""
        from safetensors import SafetensorError
        from transformers import AutoConfig

        weights = weight_files(folder)
        lacking = [file.name for file in (folder / "config.json", *weights) if not file.is_file()]
        if lacking or not weights:
            raise ConfigError("model.path", folder, f"lacks {lacking or '*.safetensors or pytorch_model*.bin weights'}")
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=self.trust_remote_code)
            parameters = parameter_count(weights)
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError("model.path", folder, f"cannot be read: {error}") from error
        for key, found in (("layers", config.num_hidden_layers), ("d_model", config.hidden_size)):
            if getattr(self, key) not in (None, found):
                raise ConfigError("model.path", folder, f"has {key} {found}, not model.{key}={getattr(self, key)}")
        code = sorted(folder.glob("*.py")) if self.trust_remote_code else []
        return Checkpoint(
            model=self.name,
            step=step,
            folder=folder,
            weights=checksum([*weights, *code, folder / "config.json"]),
            tokenizer=checksum([f for f in sorted(folder.iterdir()) if TOKENIZER_FILE.fullmatch(f.name)]),
            tokens_seen=None if self.tokens_per_step is None else step * self.tokens_per_step,
            layers=config.num_hidden_layers,
            d_model=config.hidden_size,
            trust_remote_code=self.trust_remote_code,
            parameters=parameters,
            positions=getattr(config, "max_position_embeddings", None),
        )


def check_step(folder: Path, step: int, in_names: int) -> None:
    """Refuse a folder that says it holds another step, by its name, its recipe or its trainer's state."""
    said: dict[str, int] = {}
    named = [int(found) for found in re.findall(r"(?:iter|step|checkpoint)[_-]?(\d+)", folder.resolve().name)]
    if named and not {step, in_names} & set(named):
        said["its name"] = named[-1]
    for file, key in (("recipe.json", "step"), ("trainer_state.json", "global_step")):
        if (folder / file).is_file():
            value = json.loads((folder / file).read_text(encoding="utf-8")).get(key)
            if isinstance(value, int):
                said[file] = value
    for place, value in said.items():
        if value != step:
            raise ConfigError("checkpoint", step, f"{folder} holds step {value} ({place})")


def checksum(files: list[Path]) -> str:
    """xxh3 of the files' names and bytes, read in pieces."""
    digest = xxhash.xxh3_128()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as handle:
            while piece := handle.read(1 << 24):
                digest.update(piece)
    return digest.hexdigest()
