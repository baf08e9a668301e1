"""Types of settings with their ranges, for the signatures of classes that a config can choose."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate


def _is_a_name(text: str) -> bool:
    """without `/`, and without `.` at its beginning"""
    return "/" not in text and not text.startswith(".")


Index = Annotated[int, Ge(0), Lt(2**63)]  # of seeds too
Count = Annotated[int, Ge(1), Lt(2**63)]
Number = int | float
Positive = Annotated[int | float, Gt(0)]
NotNegative = Annotated[int | float, Ge(0)]
Share = Annotated[int | float, Ge(0), Le(1)]
Text = Annotated[str, MinLen(1)]
Name = Annotated[str, MinLen(1), Predicate(_is_a_name)]
Texts = Text | Annotated[Sequence[Text], MinLen(1)]
