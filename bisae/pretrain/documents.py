"""Pre-training documents: how far they mix the two languages is decided here.

In each epoch a seeded random draw turns each group of six sentence pairs into documents of one kind:

- *pair*: one document of sentences, each followed by its translation, with either language first;
- *code-switched*: one document in each language, in which tokens are replaced by their translation with a probability;
- *plain*: one document in each language, without the other.

With plain documents only, the LM never sees the languages side by side: this is the control.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bisae.runtime.errors import Refused

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Mix:
    """Shares (0 to 1) of groups that become pair and code-switched documents; the rest becomes plain ones.

    `swap`: probability that a token with a translation is replaced, in code-switched documents.
    """

    pair: float
    code_switched: float
    swap: float

    def __post_init__(self) -> None:
        if min(self.pair, self.code_switched) < 0 or self.pair + self.code_switched > 1 or not 0 <= self.swap <= 1:
            raise Refused("mix", self, "shares of documents must be within 0..1 and sum to at most 1")


@dataclass(frozen=True)
class Group:
    """The sentence pairs of one group as token ids, without BOS: `sides[language][sentence]`."""

    sides: tuple[tuple[Ids, ...], ...]


def _joined(sentences: Sequence[Ids], bos: int, newline: int) -> Ids:
    """BOS, then one sentence on each line."""
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
    """All documents of one epoch, shuffled. The same arguments always give the same documents.

    `lexicon`: [2, vocabulary], see `dice_lexicon`.
    """
    documents: list[Ids] = []
    for number, group in enumerate(groups):
        random = np.random.default_rng([seed, epoch, number])
        draw = random.random()
        if draw < mix.pair:
            sides = group.sides if random.random() < 0.5 else group.sides[::-1]
            documents.append(_joined([side[row] for row in range(len(sides[0])) for side in sides], bos, newline))
        elif draw < mix.pair + mix.code_switched:
            for language, side in enumerate(group.sides):
                switched = [_switched(sentence, lexicon[language], mix.swap, random) for sentence in side]
                documents.append(_joined(switched, bos, newline))
        else:
            documents += [_joined(side, bos, newline) for side in group.sides]
    order = np.random.default_rng([seed, epoch]).permutation(len(documents))
    return [documents[index] for index in order]


def token_rows(
    groups: Sequence[Group], lexicon: Ids, mix: Mix, bos: int, newline: int, seed: int, rows: int, context: int
) -> Ids:
    """Training rows: the documents of as many epochs as needed, joined and cut into rows.

    Attention is not masked between the documents of a row; each starts with BOS, as is usual in LM pre-training.

    Returns:
        Token ids, [rows, context + 1].
    """
    wanted, parts, have, epoch = rows * (context + 1), [], 0, 0
    while have < wanted:
        for document in epoch_documents(groups, lexicon, mix, bos, newline, seed, epoch):
            parts.append(document)
            have += len(document)
        epoch += 1
    return np.concatenate(parts)[:wanted].reshape(rows, context + 1)
