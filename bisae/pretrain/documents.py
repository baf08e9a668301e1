"""Pre-training documents: how far they mix the two languages is decided here.

In each epoch a seeded random draw turns each group of six sentence pairs into documents of one kind:

- *pair*: one document of sentences, each followed by its translation, with either language first;
- *code-switched*: one document in each language, in which tokens are replaced by their translation with a probability;
- *plain*: one document in each language, without the other.

There are two controls. With plain documents only, the LM never sees the languages side by side. With `unpaired`, pair
documents put the sentences of one group beside those of another: the LM reads as many tokens of each language, and
switches as often between them, but no sentence stands beside its translation.
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
    `plain`: for each language, the share of plain groups that give a document in it.
    `keep_kinds`: a group is of the same kind in every epoch. Otherwise each epoch draws again, so that in the end
        every group was of every kind.
    `unpaired`: pair documents hold the sentences of one group in one language and of another group in the other.
    """

    pair: float
    code_switched: float
    swap: float
    plain: tuple[float, ...] = (1.0, 1.0)
    keep_kinds: bool = False
    unpaired: bool = False

    def __post_init__(self) -> None:
        if min(self.pair, self.code_switched) < 0 or self.pair + self.code_switched > 1 or not 0 <= self.swap <= 1:
            raise Refused("mix", self, "shares of documents must be within 0..1 and sum to at most 1")
        if len(self.plain) != 2 or not all(0 <= share <= 1 for share in self.plain):
            raise Refused("plain", list(self.plain), "give a share within 0..1 for each of the two languages")


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


def _others(members: list[int], seed: int, epoch: int) -> dict[int, int]:
    """Another member for each of `members`, drawn at random; each is another's once."""
    if len(members) == 1:
        raise Refused("unpaired", True, "there is one pair document only, so that its sentences have no other partner")
    ring = np.random.default_rng([seed, epoch, 0, 2]).permutation(members).tolist()
    return dict(zip(ring, [*ring[1:], *ring[:1]], strict=True))


def epoch_documents(
    groups: Sequence[Group], lexicon: Ids, mix: Mix, bos: int, newline: int, seed: int, epoch: int
) -> list[Ids]:
    """All documents of one epoch, shuffled. The same arguments always give the same documents.

    `lexicon`: [2, vocabulary], see `dice_lexicon`. `unpaired` changes no draw: document n of the shuffled ones is of
    the same group in both cases, with the same sentences of the group's first language.
    """
    randoms = [np.random.default_rng([seed, epoch, number]) for number in range(len(groups))]
    # Draws of the kind. The fourth word keeps them apart from the draws of any epoch.
    kinds = (
        [np.random.default_rng([seed, number, 0, 1]) for number in range(len(groups))] if mix.keep_kinds else randoms
    )
    draws = [random.random() for random in kinds]
    paired = [number for number, draw in enumerate(draws) if draw < mix.pair]
    partner = _others(paired, seed, epoch) if mix.unpaired else {}
    documents: list[Ids] = []
    for number, (group, draw, random) in enumerate(zip(groups, draws, randoms, strict=True)):
        if draw < mix.pair:
            sides = (group.sides[0], groups[partner.get(number, number)].sides[1])
            sides = sides if random.random() < 0.5 else sides[::-1]
            turns = range(max(len(side) for side in sides))  # the last group of a file may be shorter than the others
            documents.append(_joined([side[n] for n in turns for side in sides if n < len(side)], bos, newline))
        elif draw < mix.pair + mix.code_switched:
            for language, side in enumerate(group.sides):
                switched = [_switched(sentence, lexicon[language], mix.swap, random) for sentence in side]
                documents.append(_joined(switched, bos, newline))
        else:
            kept = [share == 1 or kinds[number].random() < share for share in mix.plain]
            documents += [_joined(side, bos, newline) for side, keep in zip(group.sides, kept, strict=True) if keep]
    order = np.random.default_rng([seed, epoch]).permutation(len(documents))
    return [documents[index] for index in order]


def token_rows(
    groups: Sequence[Group], lexicon: Ids, mix: Mix, bos: int, newline: int, seed: int, rows: int, context: int
) -> tuple[Ids, float]:
    """Training rows: the documents of as many epochs as needed, joined and cut into rows.

    Attention is not masked between the documents of a row; each starts with BOS, as is usual in LM pre-training.

    Returns:
        Token ids, [rows, context + 1], and how many epochs they take.
    """
    wanted, parts, have, epoch = rows * (context + 1), [], 0, 0
    while have < wanted:
        before = have
        for document in epoch_documents(groups, lexicon, mix, bos, newline, seed, epoch):
            parts.append(document)
            have += len(document)
        if have == before:
            raise Refused("mix", mix, "leaves no document of these pairs")
        epoch += 1
    epochs = epoch - (have - wanted) / (have - before)
    return np.concatenate(parts)[:wanted].reshape(rows, context + 1), epochs
