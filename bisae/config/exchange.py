"""The settings of `convert` and `dashboard`: what comes from other tools, and goes to them."""

from typing import Annotated

from annotated_types import MaxLen, MinLen, Predicate
from pydantic import Field

from bisae.config.objects import Built, Node
from bisae.config.settings import Checkpoint, Command, Keys, Object, PositiveFloat, Size, StoreKeys
from bisae.runtime.ranges import Count, Index, Text


class CreatorKeys(Keys):
    id: Text
    name: Text


class ConvertSettings(Command):
    size: Size
    model: Object | None = None
    corpus: Object
    activations: StoreKeys
    from_: Text | None = Field(alias="from")
    source: Text | None
    k: Count | None
    checkpoint: Checkpoint
    layer: Index | None
    most_fvu: PositiveFloat
    to: Text | None
    cell: Text | None
    output: Text | None
    norm: PositiveFloat | None
    push: Text | None
    private: bool
    licence: Text | None
    pull: Text | None
    revision: Text | None
    creator: CreatorKeys
    sae_classes: list[Text]
    split: Text
    tokens: Count
    recovered: Count
    runs: Text
    cache: Text


def _selects(text: str) -> bool:
    """without =, < and >"""
    return not set(text) & set("=<>")


def _fits_a_title(text: str) -> bool:
    """of letters, digits, spaces or .,:()+-"""
    return all(letter.isalnum() or letter in " _.,:()+-" for letter in text)


Selected = Annotated[str, MinLen(1), Predicate(_selects)]


class GridRunsKeys(Keys):
    sweep: Selected | None
    model: Selected | None


class DashboardSettings(Command):
    logger: Annotated[Node, Built()]
    only: GridRunsKeys
    title: Annotated[str, MinLen(1), MaxLen(128), Predicate(_fits_a_title)]
    draft: bool
