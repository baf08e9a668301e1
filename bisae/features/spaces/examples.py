"""The example features of the authors' slides, whose scores say how near in meaning tokens are that mean the same."""

from typing import Any, NamedTuple

import numpy as np

from bisae.features.measures.clusters import TokenCounts
from bisae.features.measures.monosemanticity import monosemanticity
from bisae.features.spaces.space import VectorSpace


class Example(NamedTuple):
    """Tokens of a feature on the slides, its monosemanticity there, and what these tokens alone must score.

    The last four features have more tokens than the slides show: those shown are all joined, or none of them.
    """

    words: tuple[str, ...]
    slides: float
    score: float


EXAMPLES = (
    Example(("dogs", "猫", "cat"), 1.0, 1.0),
    Example(("犬", "cat", "apples"), 0.5, 0.4206),  # by the slides' formula
    Example(("犬", "apples", "guitar"), 0.0, 0.0),
    Example(("give", "gave", "given"), 1.0, 1.0),
    Example(("ドイツ", "日本", "イギリス"), 1.0, 1.0),
    Example(("assigned", "assigns", "割り当て"), 0.85, 1.0),
    Example(("ritual", "ceremonial", "儀式"), 0.62, 1.0),
    Example(("june", ")", "american", "、"), 0.19, 0.0),
    Example(("houston", "ia", "1938"), 0.24, 0.0),
)
WORDS = tuple(dict.fromkeys(word for example in EXAMPLES for word in example.words))


class ScoredExample(NamedTuple):
    """An example in a space: its monosemanticity, whether that is as it must be, and its words, joined by `+`."""

    score: float
    right: bool
    joined: str


def in_space(space: VectorSpace, tokenizer: Any) -> list[ScoredExample]:
    """The examples in a space, `tokenizer` being one whose vocabulary it can embed. Raises Refused as `clustering`."""
    clustering, found = space.clustering_with(tokenizer, WORDS), []
    for example in EXAMPLES:
        ids = np.array([len(tokenizer) + WORDS.index(word) for word in example.words], np.int32)
        ones = np.ones(len(ids))
        clusters = clustering.entry_clusters(TokenCounts(np.array([0, len(ids)]), ids, ones))
        score = monosemanticity(ones, clusters)
        groups: dict[int, list[str]] = {}
        for word, cluster in zip(example.words, clusters.tolist(), strict=True):
            groups.setdefault(cluster, []).append(word)
        found.append(
            ScoredExample(score, abs(score - example.score) < 1e-3, "  ".join("+".join(one) for one in groups.values()))
        )
    return found
