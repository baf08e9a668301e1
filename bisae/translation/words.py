"""Words with their translations, from a lexicon that is counted (`bisae.translation.lexicon`) or from a file.

A word is whole: it begins with a space where its script has spaces, and its last token is not followed by a letter that
goes on with it in `WHOLE` of the sentences. It is *shared* if it could be mistaken for its translation: it has a token
of it, is spelled like it, or stands in the other language's sentences at least `SHARED` times as often as in its own.
"""

import json
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.pairs import Pair, read_pairs
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum, name_of
from bisae.translation.lexicon import dice_lexicon
from bisae.translation.prompts import normalised

VERSION = 1  # raise it when the same files give other words
WHOLE, SHARED, LETTERS = 0.9, 0.01, 3


class Word(NamedTuple):
    """A word and its translation, as token ids and as text; `sentences`: how many of the counted ones hold the word."""

    ids: tuple[int, ...]
    translated_ids: tuple[int, ...]
    text: str
    translation: str
    sentences: int
    shared: bool


class Vocabulary:
    """How the tokens of a tokenizer join to words."""

    def __init__(self, tokenizer: Any) -> None:
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self.texts = [tokenizer.decode([number]) for number in range(len(names))]
        self.spaced = np.array([bool(name) and name[0] in "▁Ġ " for name in names])
        first = [text.lstrip()[:1] for text in self.texts]
        special = [not name or name.startswith("<") for name in names]
        self.wide = np.array([bool(text) and is_wide(text) for text in first])
        letters = np.array([text.isalpha() for text in first])
        self.goes_on = letters & ~self.spaced & ~self.wide
        self.word = np.array([any(map(str.isalpha, text)) for text in self.texts]) & ~np.array(special)
        enough = np.array([len(text.strip()) >= LETTERS for text in self.texts])
        self.whole = self.word & (self.wide | (self.spaced & enough))

    def ends(self, ids: Sequence[int], place: int, length: int) -> bool:
        """True if the word at `place` of a text ends there."""
        after = place + length
        return after >= len(ids) or bool(self.wide[ids[place]]) or not self.goes_on[ids[after]]


def is_wide(text: str) -> bool:
    """True for a script without spaces between words, as Chinese and Japanese have it."""
    return unicodedata.east_asian_width(text[0]) in "WF" and not unicodedata.name(text[0], "").startswith("HANGUL")


class CountedSentences:
    """One side of the sentence pairs as token ids, to count in."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self._flat = np.concatenate([np.array([*row, -1], np.int64) for row in rows])
        self._number = np.repeat(np.arange(len(rows)), [len(row) + 1 for row in rows])

    def starts(self, ids: Sequence[int]) -> Int[np.ndarray, " place"]:
        """The places in all sentences where `ids` stand."""
        places = np.flatnonzero(self._flat[: len(self._flat) - len(ids) + 1] == ids[0])
        for number, token in enumerate(ids[1:], 1):
            places = places[self._flat[places + number] == token]
        return places

    def count(self, ids: Sequence[int]) -> int:
        return len(np.unique(self._number[self.starts(ids)]))

    def whole(self, ids: Sequence[int], vocabulary: Vocabulary) -> bool:
        """True if the word ends where `ids` end, in `WHOLE` of its places."""
        after = self._flat[self.starts(ids) + len(ids)]
        goes_on = vocabulary.goes_on[after] & (after >= 0)
        return bool(vocabulary.wide[ids[0]] or goes_on.mean() <= 1 - WHOLE)


@dataclass(frozen=True)
class WordSource:
    """Where words come from (config node `swap`).

    Attributes:
        words: a pair file with a word in place of a sentence; None: counted from `pairs`.
        pairs: a pair file, in whose sentences words are counted; "shipped": the shipped LMs' training text.
        together, dice: see `dice_lexicon`; a word and its translation must be each other's best.
    """

    words: str | None
    pairs: str
    together: int
    dice: float

    def read(self, tokenizer: Any, checksum_of_tokenizer: str, cache: Path) -> dict[tuple[str, str], list[Word]]:
        """The words of each direction, kept in `cache`. Refused (`words`, `pairs`) if a file cannot be read."""
        files = {"words": self.words, "pairs": str(self._pairs)}
        read = {field: _read(field, file) for field, file in files.items() if file is not None}
        languages, sentences = read["pairs"]
        if set(read.get("words", read["pairs"])[0]) != set(languages):
            raise Refused("words", self.words, f"is in {read['words'][0]}, and pairs={self.pairs} in {languages}")
        found = {"version": VERSION, "tokenizer": checksum_of_tokenizer, "together": self.together, "dice": self.dice}
        found |= {field: checksum([Path(file)]) for field, file in files.items() if file is not None}
        file = cache / "words" / f"{name_of(found)}.json"
        if not file.is_file():
            sides = [
                CountedSentences(tokenizer([pair.texts[number] for pair in sentences]).input_ids)
                for number in range(len(languages))
            ]
            vocabulary = Vocabulary(tokenizer)
            rows = [
                (
                    [languages[one], languages[other]],
                    self._of(read.get("words"), languages, (one, other), sides, tokenizer, vocabulary),
                )
                for one, other in permutations(range(len(languages)), 2)
            ]
            write_json(file, rows)
        return {
            (one, other): [Word(tuple(ids), tuple(translated), *rest) for ids, translated, *rest in words]
            for (one, other), words in json.loads(file.read_text(encoding="utf-8"))
        }

    def unused(self, language: str, words: Collection[str]) -> list[str]:
        """The listed words of `language` that are not among `words`; none where words are counted."""
        if self.words is None:
            return []
        languages, pairs = _read("words", self.words)
        listed = dict.fromkeys(pair.texts[languages.index(language)] for pair in pairs)
        used = {normalised(word) for word in words}
        return [word for word in listed if normalised(word) not in used]

    @property
    def _pairs(self) -> Path:
        return EMBEDDED / "lm.tsv.xz" if self.pairs == "shipped" else Path(self.pairs)

    def _of(
        self,
        listed: tuple[tuple[str, ...], list[Pair]] | None,
        languages: Sequence[str],
        way: tuple[int, int],
        sides: Sequence[CountedSentences],
        tokenizer: Any,
        vocabulary: Vocabulary,
    ) -> list[Word]:
        """The words of one direction, most frequent first."""
        own, other = (sides[number] for number in way)
        if listed:
            columns = [listed[0].index(languages[number]) for number in way]
            texts = [[pair.texts[column] for column in columns] for pair in listed[1]]
            candidates = [tuple(as_in_text(text, tokenizer) for text in row) for row in texts]
        else:
            candidates = list(self._counted(own, other, len(tokenizer), vocabulary))
        words: dict[tuple[int, ...], Word] = {}
        for ids, translated in candidates:
            text, translation = (tokenizer.decode(list(part)).strip() for part in (ids, translated))
            if count := own.count(ids):
                alike = normalised(text).casefold() == normalised(translation).casefold() or set(ids) & set(translated)
                shared = bool(alike) or other.count(ids) >= SHARED * count
                words.setdefault(ids, Word(ids, translated, text, translation, count, shared))
        return sorted(words.values(), key=lambda word: (-word.sentences, word.ids))

    def _counted(
        self, own: CountedSentences, other: CountedSentences, tokens: int, vocabulary: Vocabulary
    ) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        sides = list(zip(own.rows, other.rows, strict=True))
        whole: Bool[np.ndarray, " token"] = vocabulary.whole
        forth, back = dice_lexicon(sides, tokens, vocabulary.word, self.together, self.dice)
        for token in np.flatnonzero(forth >= 0).tolist():
            translated = int(forth[token])
            both = bool(whole[token] and whole[translated]) and back[translated] == token
            if both and own.whole((token,), vocabulary) and other.whole((translated,), vocabulary):
                yield (token,), (translated,)


def as_in_text(word: str, tokenizer: Any) -> tuple[int, ...]:
    """The ids of a word in the middle of a sentence."""
    return tuple(tokenizer(word if is_wide(word) else f" {word}").input_ids)


def _read(field: str, file: str) -> tuple[tuple[str, ...], list[Pair]]:
    try:
        languages, pairs = read_pairs(Path(file))
    except (OSError, ValueError) as error:
        raise Refused(field, file, str(error)) from error
    if not pairs:
        raise Refused(field, file, "holds no pairs")
    return languages, pairs
