"""From documents to LM batches: tokenised, cut to the context, the languages 1:1 by tokens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from bisae.corpus.corpus import Corpus

Tokenizer = Callable[..., Any]  # a Hugging Face tokenizer; transformers is slow to import for a type

CHUNK = 512  # documents a call of the tokenizer
# Of a long document only so many characters a token are tokenised, if that gives a head and a margin behind it.
CHARACTERS, MARGIN = 16, 32


@dataclass(frozen=True)
class TokenizedDocument:
    """The head of one document: `ids` without BOS, at most the context's length."""

    language: int
    document: int
    ids: npt.NDArray[np.int32]


def heads(
    corpus: Corpus, split: str, language: int, tokenizer: Tokenizer, context: int, shortest: int
) -> Iterator[TokenizedDocument]:
    """The first `context` tokens of each document; documents of fewer than `shortest` tokens are left out."""
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
    """Sequences of all languages, next always the one with the fewest tokens so far.

    Any beginning of the stream is 1:1 by tokens to within one sequence; it ends when one language runs out.
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
