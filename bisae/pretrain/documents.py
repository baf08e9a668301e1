"""Pre-training documents: the bridges between the languages are chosen here.

A group of six sentence pairs becomes, by a seeded draw a group and epoch,

- *pair* documents: sentence and translation in turn, either language first;
- *code-switched* documents: one a language, each token that has a translation swapped with a probability;
- *plain* documents: one a language, never both languages in one document.

The mix decides whether the LM ever sees the languages side by side: with plain documents only it is the control.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bisae.runtime.errors import Refused

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Mix:
    """Shares of the document kinds; the rest is plain. `swap`: probability a token with a translation is swapped."""

    pair: float
    code_switched: float
    swap: float

    def __post_init__(self) -> None:
        if min(self.pair, self.code_switched) < 0 or self.pair + self.code_switched > 1 or not 0 <= self.swap <= 1:
            raise Refused("mix", self, "shares of documents must be within 0..1 and sum to at most 1")


@dataclass(frozen=True)
class Group:
    """One document's worth of sentence pairs as token ids, without BOS: `sides[language][sentence]`."""

    sides: tuple[tuple[Ids, ...], ...]


def _joined(sentences: Sequence[Ids], bos: int, newline: int) -> Ids:
    """BOS, then the sentences one a line."""
    parts: list[Ids] = [np.array([bos], np.int32)]
    for sentence in sentences:
        parts += [sentence, np.array([newline], np.int32)]
    return np.concatenate(parts[:-1])


def _switched(sentence: Ids, lexicon: Ids, swap: float, random: np.random.Generator) -> Ids:
    translation = lexicon[sentence]
    swapped = (translation >= 0) & (random.random(len(sentence)) < swap)
    return np.where(swapped, translation, sentence).astype(np.int32)


def epoch_documents(
    groups: Sequence[Group], lexicon: Ids, mix: Mix, bos: int, newline: int, seed: int, epoch: int
) -> list[Ids]:
    """Every document of one epoch, shuffled: a pure function of its arguments. `lexicon`: see `dice_lexicon`."""
    made: list[Ids] = []
    for number, group in enumerate(groups):
        random = np.random.default_rng([seed, epoch, number])
        draw = random.random()
        if draw < mix.pair:
            sides = group.sides if random.random() < 0.5 else group.sides[::-1]
            made.append(_joined([side[row] for row in range(len(sides[0])) for side in sides], bos, newline))
        elif draw < mix.pair + mix.code_switched:
            for language, side in enumerate(group.sides):
                switched = [_switched(sentence, lexicon[language], mix.swap, random) for sentence in side]
                made.append(_joined(switched, bos, newline))
        else:
            made += [_joined(side, bos, newline) for side in group.sides]
    order = np.random.default_rng([seed, epoch]).permutation(len(made))
    return [made[index] for index in order]


def token_rows(
    groups: Sequence[Group], lexicon: Ids, mix: Mix, bos: int, newline: int, seed: int, rows: int, context: int
) -> Ids:
    """`[rows, context + 1]`: documents of as many epochs as needed, one after the other, cut into training rows.

    Rows are not attention-masked between documents: each document starts with BOS, as usual in LM pre-training.
    """
    wanted, parts, have, epoch = rows * (context + 1), [], 0, 0
    while have < wanted:
        for document in epoch_documents(groups, lexicon, mix, bos, newline, seed, epoch):
            parts.append(document)
            have += len(document)
        epoch += 1
    return np.concatenate(parts)[:wanted].reshape(rows, context + 1)
