"""Draw the features of a planted world."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

from bisae.planted.lexicon import SHARED_TOKENS, Lexicon
from bisae.planted.truth import CONTEXTUAL, GRAMMAR, MEANING, MIXED, NEVER, NONE, SINGLE, WORD

# By kind, where its features are born, as shares of the way from the first step to the last, and where they begin, as
# shares of the way from the embeddings to the last layer.
BORN = {
    WORD: (0.0, 0.5),
    GRAMMAR: (0.0, 0.4),
    MEANING: (0.3, 0.9),
    MIXED: (0.0, 0.3),
    CONTEXTUAL: (0.3, 0.9),
    SINGLE: (0.0, 0.4),
}
BEGIN = {
    WORD: (0.0, 0.3),
    GRAMMAR: (0.0, 0.3),
    MEANING: (0.25, 0.75),
    MIXED: (0.0, 0.5),
    CONTEXTUAL: (0.25, 0.75),
    SINGLE: (0.0, 0.0),
}
MORTAL = (WORD, MIXED, SINGLE)
TOGETHER = 0.5  # presence of correlated features: if both were always active, they were one
CLASS = 3  # function words of a class
UNRELATED = 4  # words of each language in a random mixed feature


@dataclass(eq=False)
class DrawnFeature:
    """One feature as it is drawn; the fields are those of `bisae.planted.truth.Truth`."""

    kind: int
    tokens: Int32[np.ndarray, " token"]
    languages: Sequence[int]
    presence: Sequence[float]
    birth: int  # number of the step
    first_layer: int
    death: int = NEVER
    parent: int = NONE
    partner: int = NONE
    strength: float = 1.0
    lasting: bool = False


@dataclass
class Draw:
    """Draws features one after the other.

    Args:
        rungs: Number of steps.
        second: Least and largest presence of a bilingual feature in the languages that are not its first.
        shares: Share of each language among the one-language features.
    """

    lexicon: Lexicon
    rungs: int
    layers: int
    presence: float
    second: Sequence[float]
    strength: Sequence[float]
    shares: Sequence[float]
    random: np.random.RandomState
    features: list[DrawnFeature] = field(default_factory=list)

    def add(
        self, kind: int, tokens: np.ndarray, languages: Sequence[int], lasting: bool = False, parent: int = NONE
    ) -> None:
        """Add a feature of `languages`; a `lasting` one is there from the beginning, and always active."""
        count = len(self.lexicon.languages)
        drawn = self.random.uniform(self.second[0], self.second[1], count)
        first = languages[self.random.randint(len(languages))]
        presence = [0.0] * count
        for language in languages:
            weaker = kind == MEANING and language != first
            presence[language] = 1.0 if lasting else self.presence * (float(drawn[language]) if weaker else 1.0)
        birth, layer = 0, 0
        if not lasting:
            birth, layer = self._between(BORN[kind], self.rungs - 1), self._between(BEGIN[kind], self.layers)
        if parent != NONE:
            above = self.features[parent]
            birth, layer = max(birth, above.birth), max(layer, above.first_layer)
        strength = 1.0 if lasting else float(np.exp(self.random.uniform(*np.log(self.strength))))
        tokens = np.unique(tokens).astype(np.int32)
        one = DrawnFeature(kind, tokens, languages, presence, birth, layer, NEVER, parent, NONE, strength, lasting)
        self.features.append(one)

    def language(self) -> int:
        """A language for a one-language feature."""
        return int(self.random.choice(len(self.shares), p=self.shares))

    def _between(self, shares: tuple[float, float], last: int) -> int:
        low, high = round(shares[0] * last), round(shares[1] * last)
        return int(self.random.randint(low, high + 1))

    def background(self) -> None:
        """What is there from the beginning, so that no activation is 0: each language, and each shared token."""
        lexicon = self.lexicon
        for language in range(len(lexicon.languages)):
            self.add(GRAMMAR, np.flatnonzero(lexicon.token_language == language), [language], lasting=True)
        for token in range(1, len(SHARED_TOKENS) + 1):
            self.add(SINGLE, np.array([token]), list(range(len(lexicon.languages))), lasting=True)

    def of_meanings(self, words: int, meanings: int, nested: int, correlated: int) -> None:
        """Features of the words of one meaning, of different ones if there are enough."""
        lexicon, languages = self.lexicon, len(self.lexicon.languages)
        order = self.random.permutation(lexicon.meanings)
        for meaning in order[:meanings]:
            several = 2 + self.random.randint(languages - 1)
            chosen = sorted(self.random.permutation(languages)[:several].tolist())
            self.add(MEANING, np.concatenate([lexicon.content(one)[meaning] for one in chosen]), chosen)
        first = len(self.features) - meanings
        for number in range(nested):
            above = self.features[first + number]
            language = above.languages[self.random.randint(len(above.languages))]
            forms = lexicon.content(language)[order[number]]
            kind, tokens = (SINGLE, forms[:1]) if number % 2 else (WORD, forms)
            self.add(kind, tokens, [language], parent=first + number)
        taken: set[tuple[int, int]] = set()
        first = len(self.features)
        while len(taken) < words:
            place = int(order[meanings + len(taken) % (lexicon.meanings - meanings)]), self.language()
            if place in taken:
                place = next((place[0], one) for one in range(languages) if (place[0], one) not in taken)
            taken.add(place)
            self.add(WORD, lexicon.content(place[1])[place[0]], [place[1]])
        for number in range(first, first + correlated):
            one = self.features[number]
            self.add(WORD, one.tokens, one.languages)
            self.features[-1].partner = number
            for both in (one, self.features[-1]):
                both.presence = [TOGETHER * float(share > 0) for share in both.presence]

    def of_function_words(self, grammar: int, contextual: int) -> None:
        """Classes of function words of a language, and features of the token after one of a class."""
        for number in range(grammar + contextual):
            language = self.language()
            words = self.lexicon.function(language)
            chosen = self.random.permutation(words)[:CLASS]
            self.add(GRAMMAR if number < grammar else CONTEXTUAL, chosen, [language])

    def of_words(self, mixed: int, single: int) -> None:
        """Unrelated words of all languages, and single words."""
        lexicon, languages = self.lexicon, list(range(len(self.lexicon.languages)))
        for _ in range(mixed):
            meanings = self.random.permutation(lexicon.meanings)[: UNRELATED * len(languages)].reshape(-1, UNRELATED)
            tokens = [lexicon.content(language)[meanings[language], 0] for language in languages]
            self.add(MIXED, np.concatenate(tokens), languages)
        for _ in range(single):
            language = self.language()
            self.add(SINGLE, np.array([self.random.choice(lexicon.content(language).ravel())]), [language])

    def deaths(self, share: float) -> None:
        """Let a share of the features of `MORTAL` kinds die at a step after their birth."""
        related = {one.parent for one in self.features} | {one.partner for one in self.features}
        for number, one in enumerate(self.features):
            alone = number not in related and one.parent == NONE and one.partner == NONE
            dies = self.random.uniform() < share
            later = self.random.uniform()
            if dies and alone and one.kind in MORTAL and not one.lasting and one.birth < self.rungs - 1:
                one.death = one.birth + 1 + int(later * (self.rungs - 1 - one.birth))


def directions(features: int, d_model: int, random: np.random.RandomState) -> Float32[np.ndarray, "feature d_model"]:
    """Unit vectors, orthogonal if there are no more of them than dimensions."""
    drawn = random.standard_normal((features, d_model))
    if features <= d_model:
        drawn = np.linalg.qr(drawn.T)[0].T
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
