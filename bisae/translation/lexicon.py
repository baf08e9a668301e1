"""Word translations, counted from sentence pairs: for code-switched documents and concept swaps.

Dice(a, b) = 2 n(a, b) / (n(a) + n(b)), where n counts the sentence pairs that contain a token, or both. The token with
the highest score is the translation, if the two occur together often enough.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]
Sentence = Sequence[int] | Tokens


def dice_lexicon(
    sides: Sequence[tuple[Sentence, Sentence]],
    vocabulary: int,
    words: npt.NDArray[np.bool_],
    together: int,
    dice: float,
) -> Tokens:
    """Find a translation for each token, in both directions.

    Args:
        sides: the token ids of each sentence pair.
        vocabulary: number of tokens.
        words: [vocabulary], true for tokens that may be swapped (no punctuation, digits or bytes).
        together: least number of pairs that contain both tokens.
        dice: the score must be above it.

    Returns:
        [2, vocabulary]: for each token on side 0 or 1 its translation on the other side; -1: none.
    """
    counts = np.zeros((2, vocabulary), np.int64)
    keys = []
    for first, second in sides:
        left, right = np.unique(np.asarray(first, np.int64)), np.unique(np.asarray(second, np.int64))
        counts[0, left] += 1
        counts[1, right] += 1
        left, right = left[words[left]], right[words[right]]
        keys.append((left[:, None] * vocabulary + right[None, :]).ravel())
    pairs, seen = np.unique(np.concatenate(keys), return_counts=True)
    pairs, seen = pairs[seen >= together], seen[seen >= together]
    left, right = pairs // vocabulary, pairs % vocabulary
    score = 2 * seen / (counts[0, left] + counts[1, right])
    # A token that is the same on both sides (a name, a number) needs no swap.
    keep = (score > dice) & (left != right)
    left, right, score = left[keep], right[keep], score[keep]
    lexicon = np.full((2, vocabulary), -1, np.int32)
    order = np.argsort(score, kind="stable")  # the best partner is written last
    lexicon[0, left[order]] = right[order]
    lexicon[1, right[order]] = left[order]
    return lexicon
