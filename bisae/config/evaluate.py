"""The settings of `evaluate`."""

from typing import Annotated

from annotated_types import Predicate

from bisae.config.analyze import Only
from bisae.config.settings import Checkpoint, Command, Device, Object, Short, Size
from bisae.runtime.ranges import Count, Text, Texts


def _is_table(text: str) -> bool:
    """a file name that ends in .csv or .json"""
    return text.endswith((".csv", ".json"))


class EvaluateSettings(Command):
    size: Size
    model: Object | None = None
    corpus: Object | None = None
    cell: Texts
    only: Only
    checkpoint: Checkpoint | None
    split: Text
    tokens: Count | None
    short_split: Short
    output: Annotated[str, Predicate(_is_table)] | None
    sae_classes: list[Text]
    runs: Text
    cache: Text
    device: Device
