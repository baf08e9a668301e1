"""Tokenise documents, cut them to the context, and balance the languages 1:1 by tokens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from bisae.corpus.corpus import Corpus

Tokenizer = Callable[..., Any]  # a Hugging Face tokenizer; transformers is slow to import for a type

CHUNK = 512  # documents a call of the tokenizer
# Only the first CHARACTERS * context characters of a document are tokenised, if they give context + MARGIN tokens.
CHARACTERS, MARGIN = 16, 32


@dataclass(frozen=True)
class TokenizedDocument:
    """The first tokens of a document: `ids` without BOS, at most as many as the context holds."""

    language: int
    document: int
    ids: npt.NDArray[np.int32]


def heads(
    corpus: Corpus, split: str, language: int, tokenizer: Tokenizer, context: int, shortest: int
) -> Iterator[TokenizedDocument]:
    """Yield the first `context` tokens of each document; documents of fewer than `shortest` tokens are left out."""
    documents = corpus.documents(split, language)
    while chunk := list(islice(documents, CHUNK)):
        encoded = tokenizer([d.text[: CHARACTERS * context] for d in chunk], add_special_tokens=False).input_ids
        for document, ids in zip(chunk, encoded, strict=True):
            if len(ids) < context + MARGIN and len(document.text) > CHARACTERS * context:
                (ids,) = tokenizer([document.text], add_special_tokens=False).input_ids
            if len(ids) >= shortest:
                yield TokenizedDocument(language, document.number, np.asarray(ids[:context], np.int32))


def balanced(
    corpus: Corpus, split: str, tokenizer: Tokenizer, context: int, shortest: int
) -> Iterator[TokenizedDocument]:
    """Yield sequences of all languages; the next one is always of the language with the fewest tokens so far.

    So the languages stay 1:1 by tokens, to within one sequence. The stream ends when one language runs out.
    """
    streams = [heads(corpus, split, n, tokenizer, context, shortest) for n in range(len(corpus.languages))]
    counts = [0] * len(streams)
    while True:
        language = counts.index(min(counts))
        sequence = next(streams[language], None)
        if sequence is None:
            return
        counts[language] += len(sequence.ids)
        yield sequence
