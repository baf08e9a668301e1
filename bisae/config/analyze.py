"""The settings of `analyze`."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt

from bisae.config.objects import Loggers
from bisae.config.settings import Command, Device, Keys, NotNegativeFloat, Object, PositiveFloat, Short, Size, Store
from bisae.runtime.ranges import Count, Index, Text, Texts


class Only(Keys):
    model: Text | list[Text] | None
    step: Index | list[Index] | None
    layer: Index | list[Index] | None


class MonosemanticityKeys(Keys):
    shuffles: Count
    quantile: Annotated[float, Ge(0.5), Lt(1)]


class CrossKeys(Keys):
    least: Annotated[float, Ge(0), Le(1)]
    level: Annotated[float, Ge(0), Lt(1)]


class AlignmentKeys(Keys):
    pairs: Text | None
    permutations: Count
    least: Annotated[float, Ge(0), Le(1)]
    level: Annotated[float, Ge(0), Lt(1)]


class RetrievalKeys(Keys):
    candidates: Annotated[Count, Ge(2)] | None
    layers: Literal["cells", "all"]


class ContextualKeys(Keys):
    token: NotNegativeFloat
    context: NotNegativeFloat


class LineageKeys(Keys):
    tokens: Count
    least: PositiveFloat


class AnalyzeSettings(Command):
    size: Size
    model: Object | None = None
    corpus: Object | None = None
    activations: Store
    patterns: Object
    space: Object | None = None
    report: Object
    logger: Loggers
    tags: Texts | None
    notes: Text | None
    train: list[Any]
    sae_classes: list[Text]
    runs: Texts
    only: Only
    output: Text | None
    cache: Text
    split: Text
    tokens: Count
    short_split: Short
    language: Literal["script", "document", "token"]
    threshold: Annotated[float, Ge(0.5), Lt(1)]
    monosemanticity: MonosemanticityKeys
    bilingual: Literal["cross", "monosemantic", "alignment"]
    cross: CrossKeys
    alignment: AlignmentKeys
    retrieval: RetrievalKeys
    contextual: ContextualKeys
    lineage: LineageKeys
    recovered: Count | None
    codes: Literal["keep", "delete"]
    controls: list[Text]
    resamples: Annotated[int, Ge(2), Lt(2**63)]
    seed: Index
    device: Device
