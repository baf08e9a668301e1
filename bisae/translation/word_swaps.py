"""Where translations of words are predicted in translation prompts, and which word could stand there in place of each.

Two words make a pair if they have as many tokens, translations of as many tokens, and about as many sentences. Each
word is in one pair. In a prompt each word and its translation stand once, the word in the source sentence, the other
word and its translation nowhere.
Where two words of a sentence have the same translation, only one of them gets a prompt there.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import NamedTuple

from bisae.edits.swap import WordSwap
from bisae.runtime.errors import Refused
from bisae.translation.prompts import TaskIds
from bisae.translation.words import Vocabulary, Word


class PromptExample(NamedTuple):
    """A prompt with its reference, which begins at `start`; the source stands at `begin` ... `end` - 1."""

    ids: Sequence[int]
    start: int
    begin: int
    end: int


class Occurrence(NamedTuple):
    """A word in an example: its position, and that of its translation."""

    example: PromptExample
    place: int
    translated: int


class SwapPrompt(NamedTuple):
    """A prompt that ends before a word's translation.

    Attributes:
        pair: number of the pair of words.
        word, other: the word in the prompt, and the one that takes its place.
        ids: the prompt with the reference up to the translation, BOS first.
        place: position of the word.
    """

    pair: int
    word: Word
    other: Word
    ids: tuple[int, ...]
    place: int

    @property
    def texts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt, gone on with the translation of the word, and of the other."""
        return (*self.ids, *self.word.translated_ids), (*self.ids, *self.other.translated_ids)

    @property
    def swap(self) -> WordSwap:
        return WordSwap(self.place, self.other.ids)


def swap_prompts(
    tasks: Sequence[TaskIds], words: Sequence[Word], vocabulary: Vocabulary, most: int, sentences: int, apart: float
) -> list[SwapPrompt]:
    """The prompts of one direction, in the order of pairs.

    Args:
        tasks: of that direction.
        words: of the direction, most frequent first.
        most: pairs of words at most, evenly spaced over their frequencies.
        sentences: prompts of each word at most.
        apart: the more frequent word of a pair is in at most so many times as many sentences as the other.

    Raises:
        Refused: fewer than two pairs can be made (`words`).
    """
    examples = [example for task in tasks for example in _examples(task)]
    found = _occurrences(examples, words, vocabulary)
    made: list[list[SwapPrompt]] = []
    swaps: dict[tuple[int, ...], WordSwap] = {}  # a text says itself what is swapped in it
    for one, other in matched([word for word in words if found[word]], apart):
        prompts = [
            SwapPrompt(0, word, instead, tuple(found_at.example.ids[: found_at.translated]), found_at.place)
            for word, instead in ((one, other), (other, one))
            for found_at in _usable(found[word], instead)[:sentences]
        ]
        prompts = [one for one in prompts if all(swaps.get(text, one.swap) == one.swap for text in one.texts)]
        swaps |= {text: one.swap for one in prompts for text in one.texts}
        if prompts:
            made.append(prompts)
    if len(made) < 2:
        way = f"{tasks[0].task.source_language} to {tasks[0].task.target_language}"
        remedy = f"{len(words)} words from {way} make {len(made)} pairs in {len(examples)} examples; give more of both"
        raise Refused("words", None, remedy)
    chosen = made if len(made) <= most else [made[number * len(made) // most] for number in range(most)]
    return [prompt._replace(pair=number) for number, part in enumerate(chosen) for prompt in part]


def _examples(task: TaskIds) -> list[PromptExample]:
    """The examples of a task. Their prompts differ in the source; instruction and shots before it are the same."""
    prompts = [list(ids[:start]) for ids, start in zip(task.texts, task.starts, strict=True)]
    before, after = (len(commonprefix(some)) for some in (prompts, [prompt[::-1] for prompt in prompts]))
    if prompts.count(prompts[0]) == len(prompts):
        before = after = 0
    return [
        PromptExample(ids, start, before, start - after) for ids, start in zip(task.texts, task.starts, strict=True)
    ]


def matched(words: Sequence[Word], apart: float) -> list[tuple[Word, Word]]:
    """Pairs of words that are neighbours in frequency, of the same lengths; shared words with shared ones only."""
    alike: dict[tuple[int, int, bool], list[Word]] = defaultdict(list)
    for word in words:
        alike[len(word.ids), len(word.translated_ids), word.shared].append(word)
    pairs = []
    for group in alike.values():
        waiting: Word | None = None
        for word in group:
            if (
                waiting is not None
                and waiting.sentences <= apart * word.sentences
                and waiting.translated_ids != word.translated_ids
            ):
                pairs.append((waiting, word))
                waiting = None
            else:
                waiting = word
    return sorted(pairs, key=lambda pair: (-pair[0].sentences, pair[0].ids))


def _occurrences(
    examples: Sequence[PromptExample], words: Sequence[Word], vocabulary: Vocabulary
) -> Mapping[Word, Sequence[Occurrence]]:
    """The examples in which each word and its translation stand once."""
    by_first: dict[int, list[Word]] = defaultdict(list)
    for word in words:
        by_first[word.ids[0]].append(word)
    found: dict[Word, list[Occurrence]] = {word: [] for word in words}
    for example in examples:
        prompt, reference = example.ids[: example.start], example.ids[example.start :]
        for word in {word: None for token in prompt for word in by_first.get(token, ())}:
            here, there = _places(prompt, word.ids), _places(reference, word.translated_ids)
            lengths = len(word.ids), len(word.translated_ids)
            if len(here) != 1 or len(there) != 1 or _places(prompt, word.translated_ids):
                continue
            if here[0] < example.begin or here[0] + lengths[0] > example.end:  # in a shot or the instruction
                continue
            if vocabulary.ends(prompt, here[0], lengths[0]) and vocabulary.ends(reference, there[0], lengths[1]):
                found[word].append(Occurrence(example, here[0], example.start + there[0]))
    return found


def _usable(occurrences: Sequence[Occurrence], other: Word) -> list[Occurrence]:
    """Those in whose example the other word and its translation do not stand."""
    parts = other.ids, other.translated_ids
    return [found for found in occurrences if not any(_places(found.example.ids, part) for part in parts)]


def _places(ids: Sequence[int], part: Sequence[int]) -> list[int]:
    part = list(part)
    return [n for n, token in enumerate(ids) if token == part[0] and list(ids[n : n + len(part)]) == part]
