"""Statistics of the text read so far: tokens of each language, and texts that languages share."""

from array import array
from collections.abc import Iterable

import numpy as np
import xxhash

from bisae.corpus.tokens import TokenizedDocument


class ReadSoFar:
    """Tokens and hashes of the sequences read in each language; 8 bytes of RAM for each sequence."""

    def __init__(self, languages: tuple[str, ...]) -> None:
        self.languages = languages
        self.tokens = [0] * len(languages)
        self._hashes = [array("Q") for _ in languages]

    def add(self, sequences: Iterable[TokenizedDocument]) -> None:
        for sequence in sequences:
            self.tokens[sequence.language] += len(sequence.ids)
            self._hashes[sequence.language].append(xxhash.xxh3_64_intdigest(sequence.ids.tobytes()))

    def ended(self) -> str:
        """Say, in words, which language ran out first, once the stream has ended.

        It is the one with the fewest tokens, since `balanced` would read it next.
        """
        fewest = min(self.tokens)
        language = self.languages[self.tokens.index(fewest)]
        others = ", and every language is read as far as the shortest" if len(self.languages) > 1 else ""
        return f"{language} ran out after {fewest} tokens{others}"

    @property
    def shared(self) -> int:
        """Number of texts that are in more than one language; only the part that the LM reads is compared."""
        distinct = [np.unique(np.frombuffer(hashes, np.uint64)) for hashes in self._hashes]
        _, counts = np.unique(np.concatenate(distinct), return_counts=True)
        return int((counts > 1).sum())

    def remarks(self) -> list[str]:
        """Describe what is odd about the text, in a sentence each."""
        if not (shared := self.shared):
            return []
        total = sum(map(len, self._hashes))
        return [f"{shared:,} of {total:,} documents read are the same in more than one language"]
