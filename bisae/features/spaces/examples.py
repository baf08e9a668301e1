"""The example features of the authors' slides, whose scores say how near in meaning tokens are that mean the same."""

from typing import NamedTuple


class Example(NamedTuple):
    """Tokens of a feature on the slides, and its monosemanticity there.

    `whole`: these are all its tokens; otherwise they are a part, whose own score is 1 if they are joined, else 0.
    """

    words: tuple[str, ...]
    score: float
    whole: bool


EXAMPLES = (
    Example(("dogs", "猫", "cat"), 1.0, True),
    Example(("犬", "cat", "apples"), 0.5, True),  # by the slides' formula 0.42
    Example(("犬", "apples", "guitar"), 0.0, True),
    Example(("give", "gave", "given"), 1.0, True),
    Example(("ドイツ", "日本", "イギリス"), 1.0, True),
    Example(("assigned", "assigns", "割り当て"), 0.85, False),
    Example(("ritual", "ceremonial", "儀式"), 0.62, False),
    Example(("june", ")", "american", "、"), 0.19, False),
    Example(("houston", "ia", "1938"), 0.24, False),
)
WORDS = tuple(dict.fromkeys(word for example in EXAMPLES for word in example.words))
