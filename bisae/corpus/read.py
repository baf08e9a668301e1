"""What was read of a corpus: how much of each language, and what two languages share."""

from array import array
from collections.abc import Iterable

import numpy as np
import xxhash

from bisae.corpus.tokens import TokenizedDocument


class ReadSoFar:
    """Tokens and hashes of the sequences read of each language: 8 bytes a sequence."""

    def __init__(self, languages: tuple[str, ...]) -> None:
        self.languages = languages
        self.tokens = [0] * len(languages)
        self._hashes = [array("Q") for _ in languages]

    def add(self, sequences: Iterable[TokenizedDocument]) -> None:
        for sequence in sequences:
            self.tokens[sequence.language] += len(sequence.ids)
            self._hashes[sequence.language].append(xxhash.xxh3_64_intdigest(sequence.ids.tobytes()))

    def ended(self) -> str:
        """Which language ran out, once the stream has ended: the one with the fewest tokens, which was to be next."""
        fewest = min(self.tokens)
        language = self.languages[self.tokens.index(fewest)]
        others = ", and every language is read as far as the shortest" if len(self.languages) > 1 else ""
        return f"{language} ran out after {fewest} tokens{others}"

    @property
    def shared(self) -> int:
        """Texts that are in more than one language, as far as the LM reads them."""
        distinct = [np.unique(np.frombuffer(hashes, np.uint64)) for hashes in self._hashes]
        _, counts = np.unique(np.concatenate(distinct), return_counts=True)
        return int((counts > 1).sum())

    def remarks(self) -> list[str]:
        """What is odd about it, in a sentence."""
        if not (shared := self.shared):
            return []
        total = sum(map(len, self._hashes))
        return [f"{shared:,} of {total:,} documents read are the same in more than one language"]
