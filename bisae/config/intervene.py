"""The settings of `intervene`."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt, MaxLen
from pydantic import BeforeValidator, Field, StringConstraints

from bisae.config.objects import Loggers
from bisae.config.settings import Checkpoint, Command, Device, Keys, Layers, Object, Precision, ShareFloat, Size
from bisae.runtime.ranges import Count, Index, Number, Text, Texts

Recipient = Checkpoint | Annotated[str, StringConstraints(pattern=r"^[^/]+/(final|\d+)$")]


class DonorKeys(Keys):
    model: Text | None
    step: Checkpoint
    sae: Text | None


class ControlKeys(Keys):
    random: Index
    shuffled: bool
    self: bool


class PerplexityKeys(Keys):
    split: Text
    documents: Count | None
    longest: Count | None
    context: Annotated[Count, Ge(2)]
    stride: Count
    mix: dict[str, float] | None


class SwapKeys(Keys):
    words: Text | None
    pairs: Text
    together: Count
    dice: ShareFloat
    most: Annotated[Count, Ge(2)]
    sentences: Count
    apart: Annotated[float, Ge(1)]


class ContinueKeys(Keys):
    prompts: Texts | Annotated[list[Any], MaxLen(0)]
    max_new_tokens: Count


class TranslationKeys(Keys):
    tasks: Object
    prompt: Object
    metrics: dict[str, Object]
    answers: bool


def _or_none(found: Any) -> Any:
    return found or None  # translation=none, an empty group


class InterveneSettings(Command):
    size: Size
    model: Object | None = None
    corpus: Object | None = None
    translation: Annotated[TranslationKeys | None, BeforeValidator(_or_none)] = None
    logger: Loggers
    tags: Texts | None
    notes: Text | None
    sae_classes: list[Text]
    runs: Texts
    analyze: list[Text] | None
    donor: DonorKeys
    recipient: Recipient | list[Recipient]
    layer: Layers | Literal["auto"]
    retrieval: Text
    kind: Text | list[Any]
    features: Literal["equal"] | Count | None
    control: ControlKeys
    mode: Literal["add", "replace", "ablate", "scale", "steer", "swap"]
    norm: Literal["donor", "recipient"]
    coefficient: Number | list[Number]
    perplexity: PerplexityKeys
    swap: SwapKeys
    continued: ContinueKeys = Field(alias="continue")
    batch: Count
    dtype: Precision
    output: Text
    cache: Text
    resamples: Annotated[int, Ge(2), Lt(2**63)]
    seed: Index
    device: Device
