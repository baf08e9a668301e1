"""The settings by which features are described: all that an analysis depends on, besides the cell and its text.

What the settings mean is in `bisae.features`: the rule for *bilingual* in `measures.bilingual`, for *contextual* in
`measures.contextual`, for the language in `measures.language`, for contexts in `contexts`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bisae.corpus.corpus import Corpus, CorpusWithLexicon
from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.languages import plain_of
from bisae.corpus.pairs import PairSentences, Sentences
from bisae.features.contexts import Patterns
from bisae.features.measures.bilingual import RULES as BILINGUAL_RULES
from bisae.features.measures.language import SCRIPTS, check_script_languages, script_of_rows, script_of_tokens
from bisae.features.spaces.space import Space
from bisae.features.tokens import Tokens
from bisae.runtime.errors import Refused

VERSION = 5  # raise it when a rule computes something else: every cell is then analysed again


def script_language(tokens: Tokens, texts: Sequence[str], languages: Sequence[str]) -> UInt8[np.ndarray, " token"]:
    """The language of each token by v1's rule, as an index into `languages`, which are `in_scripts`."""
    script = script_of_rows(tokens.token_ids, tokens.sequence, script_of_tokens(texts))
    plain = [plain_of(language) for language in languages]
    return np.array([plain.index(language) for language in SCRIPTS], np.uint8)[script]


@dataclass(frozen=True)
class MonosemanticityRule:
    """The null of a feature's monosemanticity: its values with shuffled meanings.

    `shuffles`: how many. `quantile`: a Mixed feature above this quantile of them is bilingual.
    """

    shuffles: int
    quantile: float


@dataclass(frozen=True)
class CrossRule:
    """When a feature is bilingual by `bisae.features.measures.cross`.

    `least`: so much of the contexts of its words in each language must be in clusters with words of the other.
    `level`: false discovery rate among the Mixed features.
    """

    least: float
    level: float


@dataclass(frozen=True)
class AlignmentRule:
    """When a feature is aligned: its correlation over sentence pairs is at least `least`, and significant.

    `pairs`: a pair file, "shipped", "corpus" (the corpus' own), or None, which leaves alignment out. `level`: false
    discovery rate among all features. `permutations`: of the pairs, from which p-values are computed.
    """

    pairs: str | None
    permutations: int
    least: float
    level: float

    def sentences(self, corpus: Corpus) -> Sentences | None:
        """The sentence pairs for a cell's corpus; None without alignment. Refused if there are none."""
        if self.pairs != "corpus":
            return self.file
        if not isinstance(corpus, Sentences):
            raise Refused("pairs", "corpus", f"{corpus.name} has no sentence pairs; give a file, or null")
        return corpus

    @cached_property
    def file(self) -> PairSentences | None:
        """The sentence pairs of a file. Refused if there is no such file."""
        if self.pairs in (None, "corpus"):
            return None
        path = EMBEDDED / "alignment.tsv.xz" if self.pairs == "shipped" else Path(self.pairs)
        if not path.is_file():
            raise Refused("pairs", self.pairs, "no such file; null leaves alignment out")
        return PairSentences(path)


@dataclass(frozen=True)
class RetrievalRule:
    """How translations are retrieved (`bisae.features.measures.retrieval`).

    `candidates`: sentence pairs among which each translation is looked for; None leaves retrieval out. `layers`: whose
    stream retrieves: "cells" (those with an SAE) or "all".
    """

    candidates: int | None
    layers: str


@dataclass(frozen=True)
class ContextualRule:
    """The thresholds of `bisae.features.measures.contextual.is_contextual`."""

    token: float
    context: float


@dataclass(frozen=True, eq=False)
class Rules:
    """How features are described (conf/analyze.yaml says what each is)."""

    patterns: Patterns
    language: str
    threshold: float
    space: Space
    monosemanticity: MonosemanticityRule
    bilingual: str
    cross: CrossRule
    alignment: AlignmentRule
    retrieval: RetrievalRule
    contextual: ContextualRule
    recovered: int | None
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.language not in ("script", "document", "token"):
            raise Refused("language", self.language, "choose script, document or token")
        if self.bilingual not in BILINGUAL_RULES:
            raise Refused("bilingual", self.bilingual, f"choose {', '.join(BILINGUAL_RULES)}")
        if self.bilingual == "alignment" and self.alignment.pairs is None:
            raise Refused("bilingual", "alignment", "needs sentence pairs, but pairs is null")
        if self.recovered is not None and (type(self.recovered) is not int or self.recovered < 1):
            raise Refused("recovered", self.recovered, "must be null or a whole number of documents")
        shares = {"threshold": self.threshold, "quantile": self.monosemanticity.quantile}
        for field, share in shares.items():
            if not 0.5 <= share < 1:
                raise Refused(field, share, "must be at least 0.5 and below 1")

    def check(self, corpus: Corpus) -> None:
        """Refuse a corpus to which the rules cannot be applied."""
        languages = corpus.languages
        if self.language == "script":
            check_script_languages(languages)
        if self.language == "token" and not isinstance(corpus, CorpusWithLexicon):
            raise Refused("language", "token", f"{corpus.name} does not know the language of a word; choose document")
        if self.bilingual == "cross" and len(languages) > 2:
            remedy = f"compares two languages, but the text is in {', '.join(languages)}; choose monosemantic"
            raise Refused("bilingual", "cross", remedy)
        sentences = self.alignment.sentences(corpus)
        if sentences is not None and set(sentences.languages) != set(languages):
            pair, text = sorted(sentences.languages), sorted(languages)
            remedy = f"is in {pair}, the corpus in {text}; null leaves alignment out"
            raise Refused("pairs", self.alignment.pairs, remedy)
        if sentences is not None and len(languages) != 2:
            raise Refused("pairs", self.alignment.pairs, f"is of {len(languages)} languages, not two; give null")

    def language_of_rows(self, tokens: Tokens, texts: Sequence[str], corpus: Corpus) -> UInt8[np.ndarray, " token"]:
        """The language that each token counts for, as an index into those of the corpus. `texts`: of the vocabulary."""
        if self.language == "document":
            return tokens.language
        if isinstance(corpus, CorpusWithLexicon) and self.language == "token":
            own = corpus.language_of_tokens(texts)[tokens.token_ids]
            return np.where(own < 0, tokens.language, own).astype(np.uint8)
        return script_language(tokens, texts, corpus.languages)

    @cached_property
    def describe(self) -> dict[str, Any]:
        """The rules as JSON. An analysis is named by a hash of this."""
        patterns: Any = self.patterns
        file = self.alignment.file  # of "corpus" there is none, and the text's checksum holds the pairs
        return {
            "version": VERSION,
            "patterns": {"rule": type(patterns).__name__.lower(), **asdict(patterns)},
            "language": {"rule": self.language, "threshold": self.threshold},
            "space": dict(self.space.fingerprint),
            "monosemanticity": asdict(self.monosemanticity),
            "bilingual": self.bilingual,
            "cross": asdict(self.cross),
            "alignment": {**asdict(self.alignment), "pairs": file.checksum("") if file else self.alignment.pairs},
            **({} if self.alignment.pairs is None else {"retrieval": asdict(self.retrieval)}),
            "contextual": asdict(self.contextual),
            **({} if self.recovered is None else {"recovered": self.recovered}),
            "resamples": self.resamples,
            "seed": self.seed,
        }
