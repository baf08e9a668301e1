"""The vocabulary of a planted world: made-up words of several languages, of which words of one meaning are known."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32

from bisae.corpus.languages import codes_of, script_of
from bisae.runtime.errors import Refused
from bisae.runtime.naming import name_of

# Syllables by script, consonants x vowels. Languages of other scripts are written in the first.
ALPHABETS = {
    "Latn": ("bdfgklmnprstvz", "aeiou"),
    "Jpan": ("かきくこさしたなはまやも", "あいうえおらりるれろん"),
    "Cyrl": ("бдгклмнпрствз", "аеиоу"),
    "Grek": ("βγδζκλμνπρστφ", "αειου"),
}
SHARED_TOKENS = (".", ",", *"0123456789")  # of all languages; the first ends a sentence
UNKNOWN = "<unk>"  # id 0, which no text of the world holds
MARK = "▁"  # before each token, as in SentencePiece


@dataclass(frozen=True)
class Lexicon:
    """The words of all languages.

    Ids: `UNKNOWN`, the shared tokens, then for each language its function words and its content words, by meaning.

    Args:
        languages: Codes of the languages.
        meanings: Number of meanings that have words.
        forms: Content words of each meaning in each language.
        function_words: Function words of each language, each of a meaning of its own.
        seed: Of the spelling.
    """

    languages: tuple[str, ...]
    meanings: int
    forms: int
    function_words: int
    seed: int

    def __post_init__(self) -> None:
        try:
            codes = codes_of(self.languages)
        except ValueError as error:
            raise Refused("lexicon.languages", list(self.languages), str(error)) from error
        if codes != tuple(self.languages) or len(codes) < 2:
            raise Refused(
                "lexicon.languages", list(self.languages), "must be two codes or more, in their shortest form"
            )

    @classmethod
    def of(cls, node: Mapping[str, Any] | None) -> "Lexicon":
        """The lexicon of a config node. Raises Refused (`lexicon`, by the key)."""
        if node is None:
            raise Refused("lexicon", None, "is that of corpus=planted, which a planted LM needs; give it too")
        if set(node) != set(cls.__dataclass_fields__):
            raise Refused("lexicon", sorted(node), f"must have the keys {', '.join(cls.__dataclass_fields__)}")
        for key, least in (("meanings", 1), ("forms", 2), ("function_words", 1), ("seed", 0)):
            if type(node[key]) is not int or not least <= node[key] < 2**31:
                raise Refused(f"lexicon.{key}", node[key], f"must be a whole number from {least} on")
        if not isinstance(node["languages"], list | tuple):
            raise Refused("lexicon.languages", node["languages"], "must be a list of codes")
        return cls(**{**node, "languages": tuple(node["languages"])})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The settings and the words that they make, as JSON values."""
        return {**asdict(self), "languages": list(self.languages), "words": name_of({"words": self.words})}

    @property
    def size(self) -> int:
        """Number of token ids."""
        return 1 + len(SHARED_TOKENS) + len(self.languages) * self._of_language

    @property
    def _of_language(self) -> int:
        return self.function_words + self.meanings * self.forms

    def function(self, language: int) -> Int32[np.ndarray, " word"]:
        """Ids of a language's function words."""
        first = 1 + len(SHARED_TOKENS) + language * self._of_language
        return np.arange(first, first + self.function_words, dtype=np.int32)

    def content(self, language: int) -> Int32[np.ndarray, "meaning form"]:
        """Ids of a language's content words."""
        first = int(self.function(language)[-1]) + 1
        words = np.arange(first, first + self.meanings * self.forms, dtype=np.int32)
        return words.reshape(self.meanings, self.forms)

    @cached_property
    def token_language(self) -> Int32[np.ndarray, " vocabulary"]:
        """Index into `languages` by token id; -1 for tokens of all languages."""
        shared = np.full(1 + len(SHARED_TOKENS), -1, np.int32)
        return np.append(shared, np.repeat(np.arange(len(self.languages), dtype=np.int32), self._of_language))

    @cached_property
    def token_meaning(self) -> Int32[np.ndarray, " vocabulary"]:
        """Number of the meaning of each token. Those of content words come first, 0 to `meanings` - 1."""
        meaning = np.full(self.size, -1, np.int32)
        for language in range(len(self.languages)):
            meaning[self.content(language)] = np.arange(self.meanings)[:, None]
        alone = meaning < 0
        meaning[alone] = self.meanings + np.arange(alone.sum())
        return meaning

    @cached_property
    def words(self) -> list[str]:
        """The spelling of each token, without its mark."""
        rng, taken = np.random.default_rng([self.seed, 0]), {UNKNOWN, *SHARED_TOKENS}
        words = [UNKNOWN, *SHARED_TOKENS]
        for language in self.languages:
            consonants, vowels = ALPHABETS.get(script_of(language) or "", ALPHABETS["Latn"])
            syllables = [first + second for first in consonants for second in vowels]
            for number in range(self._of_language):
                length = 1 if number < self.function_words else 2
                while (word := "".join(rng.choice(syllables, length))) in taken:
                    length += bool(rng.random() < 0.2)
                taken.add(word)
                words.append(word)
        return words
