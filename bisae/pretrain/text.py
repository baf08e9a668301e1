"""Turn sentence pairs into the training rows and validation documents of a ladder."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bisae.corpus.pairs import ROWS_PER_DOCUMENT, Pair, documents, read_pairs
from bisae.pretrain.documents import Group, Mix, token_rows
from bisae.runtime.errors import Refused
from bisae.translation.lexicon import dice_lexicon

log = logging.getLogger("bisae.pretrain")


@dataclass(frozen=True)
class Pairs:
    """The sentence pairs of a run: `lm` for training, `validation` for perplexities only."""

    languages: tuple[str, ...]
    lm: list[Pair]
    validation: list[Pair]

    @classmethod
    def read(cls, lm: Path, validation: Path) -> "Pairs":
        """Read both files.

        Raises:
            Refused: a file, named by its argument, is missing, malformed, empty or in other languages.
        """
        parts = []
        for field, path in (("lm", lm), ("validation", validation)):
            if not path.is_file():
                raise Refused(field, path, "no such pair file (id, then one language a column; .tsv or .tsv.xz)")
            try:
                parts.append(read_pairs(path))
            except ValueError as error:
                raise Refused(field, path, str(error)) from error
            if not parts[-1][1]:
                raise Refused(field, path, "holds no pairs")
        (languages, trained), (held_languages, held) = parts
        if len(languages) != 2 or held_languages != languages:
            raise Refused("validation", held_languages, f"must have the languages of the training pairs, {languages}")
        return cls(languages, trained, held)


def training_rows(
    pairs: Pairs, tokenizer: Any, mix: Mix, together: int, dice: float, seed: int, rows: int, context: int
) -> tuple[npt.NDArray[np.int32], float]:
    """The training rows of a run, [rows, context + 1], and their epochs. `together` and `dice`: see `dice_lexicon`."""

    def ids(language: int) -> list[npt.NDArray[np.int32]]:
        texts = [pair.texts[language] for pair in pairs.lm]
        return [np.array(row, np.int32) for row in tokenizer(texts, add_special_tokens=False).input_ids]

    sides = ids(0), ids(1)
    starts = range(0, len(pairs.lm), ROWS_PER_DOCUMENT)
    groups = [Group(tuple(tuple(side[start : start + ROWS_PER_DOCUMENT]) for side in sides)) for start in starts]
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words = np.array([any(c.isalpha() for c in token) and not token.startswith("<") for token in vocabulary])
    lexicon = dice_lexicon(list(zip(*sides, strict=True)), len(tokenizer), words, together, dice)
    log.info("lexicon: %d and %d tokens have a translation", *(lexicon >= 0).sum(1))
    newline = tokenizer.convert_tokens_to_ids("<0x0A>")
    made, epochs = token_rows(groups, lexicon, mix, tokenizer.bos_token_id, newline, seed, rows, context)
    log.info("text: %d tokens, %.1f epochs over %d pairs", made.size, epochs, len(pairs.lm))
    return made, epochs


def validation_documents(
    languages: tuple[str, ...], pairs: list[Pair], tokenizer: Any, context: int
) -> dict[str, list[list[int]]]:
    """The token ids of plain documents by language: BOS, then at most `context` tokens."""
    documents_of = {
        name: ["\n".join(p.texts[n] for p in d) for d in documents(pairs)] for n, name in enumerate(languages)
    }
    return {
        name: [[tokenizer.bos_token_id, *row[:context]] for row in tokenizer(texts, add_special_tokens=False).input_ids]
        for name, texts in documents_of.items()
    }
