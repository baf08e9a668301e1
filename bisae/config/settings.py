"""Checking a command's whole config, and the groups that several commands have."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from omegaconf import OmegaConf
from pydantic import BaseModel, ConfigDict, Field

from bisae.config.objects import Built, Node, check_beside, check_object, objects_in, validated
from bisae.runtime.errors import ConfigError
from bisae.runtime.ranges import Count, Index, Name, Number, Positive, Text

Checkpoint = Index | Literal["final"]
Layers = int | list[int] | Literal["all"]
PositiveFloat = Annotated[float, Gt(0)]  # a whole number becomes one of these
NotNegativeFloat = Annotated[float, Ge(0)]
BelowOneFloat = Annotated[float, Ge(0), Lt(1)]
ShareFloat = Annotated[float, Ge(0), Le(1)]
Device = Literal["auto", "cpu", "cuda"]
Pack = Count | Literal[False]
Short = Literal["refuse", "take"]  # what becomes of a split with fewer tokens than asked for
Precision = Literal["float32", "bfloat16", "float16"]


class Keys(BaseModel):
    """A mapping with these keys and no others; a whole number is no truth value, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PathKeys(Keys):
    root: Text
    runs: Text
    cache: Text
    report: Text
    interventions: Text


class Command(Keys):
    """All settings of a command."""

    paths: PathKeys | None = None  # which other keys refer to
    print_config: bool = False

    @property
    def runs_folder(self) -> str:
        """The folder of runs, whatever cells a command reads."""
        return self.paths.runs if self.paths else "runs"

    def check_objects(self, late: bool) -> None:
        """Check the objects' classes and arguments: those that are slow to import with `late`, else the others.

        Of those that are slow, what is no argument of the class is checked without `late` too.
        """
        for key, node, built in objects_in(type(self), self, ""):
            if built.late == late:
                check_object(key, node, built)
            elif built.late:
                check_beside(key, node, built)


Settings = TypeVar("Settings", bound=Command)


def check_finite(node: Any, key: str = "") -> None:
    """Refuse numbers that are infinite or NaN, of which no name of a cell could be made."""
    if isinstance(node, float) and not math.isfinite(node):
        raise ConfigError(key, node, "must be a finite number")
    for name, inner in node.items() if isinstance(node, Mapping) else ():
        check_finite(inner, f"{key}.{name}" if key else str(name))
    for inner in node if isinstance(node, list) else ():
        check_finite(inner, key)


def read_settings(kind: type[Settings], cfg: Any) -> Settings:
    """A command's config, checked but for its `late` objects.

    ConfigError for a key that is missing, unknown or of another type or range, by the key as it is typed.
    """
    for key in sorted(OmegaConf.missing_keys(cfg)):  # a set: else another key first in every process
        raise ConfigError(key, "???", "give a value")
    found: Any = OmegaConf.to_container(cfg, resolve=True)
    check_finite(found)
    settings = validated(kind, found)
    settings.check_objects(late=False)
    return settings


class LMPassKeys(Keys):
    context: Annotated[Count, Lt(2**15)]  # positions are stored as int16
    shortest: Count
    lm_batch: Count
    shard_batches: Count
    lm_dtype: Precision
    device: Device


class Size(Keys):
    """The values of an experiment, which other keys refer to."""

    layer: Layers
    latents: Count
    k: Count
    lr: Positive
    study_lr: Positive
    beta2: BelowOneFloat
    decay: ShareFloat
    warmup: Count
    tokens: Count
    validation_tokens: Count
    short_split: Short
    epochs: Count
    batch: Count
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    block: Count
    pool_batches: Count
    window_pools: Count
    pack: Pack
    aux_k: Index
    dead_after: Count
    context: Count
    shortest: Count
    lm_batch: Count
    shard_batches: Count
    lm_dtype: Precision
    analysis_tokens: Count
    pairs: Text | None
    recipient: Checkpoint | list[Checkpoint] | None
    edited: Layers | None
    coefficient: Number | list[Number]
    documents: Count | None
    perplexity_context: Count
    stride: Count


class SAEKeys(Keys):
    """Keys of `sae` that are no arguments of its class."""

    name: Name
    lr: Positive
    dead_after: Count
    encoder_norm: PositiveFloat = 1.0
    baseline: Literal["frozen_decoder", "soft_frozen_decoder", "frozen_encoder"] | None = None
    start: Text | None = None
    candidates: Count | Literal["auto", "none"] = "auto"


class StoreKeys(Keys):
    """Keys of `activations` that are no arguments of the store."""

    lm_pass: LMPassKeys = Field(alias="pass")


class OptimizerKeys(Keys):
    warmup: Count
    by_block: bool = True
    partial: Annotated[Node, Built("torch.optim.Optimizer", given=("params", "lr"), late=True)]


def store_node(activations: Node) -> Node:
    """Return the store of config group `activations`, without its key `pass`."""
    return {key: value for key, value in activations.items() if key != "pass"}


def pass_keys(activations: Node) -> dict[str, Any]:
    """Return the arguments of the LM pass in config group `activations`."""
    return StoreKeys.model_validate({"pass": activations["pass"]}).lm_pass.model_dump()


Object = Annotated[Node, Built()]
Store = Annotated[Node, Built(beside=StoreKeys, late=True)]
