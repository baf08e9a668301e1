"""The rules by which features are described: everything an analysis depends on beside the cell and its text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from bisae.corpus.embedded import EMBEDDED
from bisae.corpus.languages import plain_of
from bisae.corpus.pairs import PairSentences
from bisae.features.contexts import Patterns
from bisae.features.measures.language import SCRIPTS, check_script_languages, script_of_rows, script_of_tokens
from bisae.features.spaces.space import Space
from bisae.features.tokens import Tokens
from bisae.runtime.errors import Refused

VERSION = 2  # of the rules; a change of what they compute raises it, and features are computed anew


@dataclass(frozen=True)
class MonosemanticityRule:
    """`shuffles` of the clusters for a feature's null; above its `quantile` a Mixed feature is bilingual."""

    shuffles: int
    quantile: float


@dataclass(frozen=True)
class AlignmentRule:
    """`pairs`: a pair file, or "shipped". A feature is aligned if its correlation is at least `least`, at false
    discovery rate `level` among all features, from `permutations` of the pairs."""

    pairs: str | None
    permutations: int
    least: float
    level: float

    @cached_property
    def sentences(self) -> PairSentences | None:
        """Refused if there is no such file."""
        if self.pairs is None:
            return None
        path = EMBEDDED / "alignment.tsv.xz" if self.pairs == "shipped" else Path(self.pairs)
        if not path.is_file():
            raise Refused("pairs", self.pairs, "no such file; null leaves alignment out")
        return PairSentences(path)


@dataclass(frozen=True)
class ContextualRule:
    """A definition of our own: the token itself explains less of the firing than `token`, a neighbour more than
    `context` (`bisae.features.measures.contextual`); without the latter noise would be contextual."""

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
    alignment: AlignmentRule
    contextual: ContextualRule
    recovered: int | None
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.language not in ("script", "document"):
            raise Refused("language", self.language, "choose script or document")
        if self.bilingual not in ("monosemantic", "alignment"):
            raise Refused("bilingual", self.bilingual, "choose monosemantic or alignment")
        if self.bilingual == "alignment" and self.alignment.pairs is None:
            raise Refused("bilingual", "alignment", "needs sentence pairs, but pairs is null")
        if self.recovered is not None and (type(self.recovered) is not int or self.recovered < 1):
            raise Refused("recovered", self.recovered, "must be null or a whole number of documents")
        shares = {"threshold": self.threshold, "quantile": self.monosemanticity.quantile}
        for field, share in shares.items():
            if not 0.5 <= share < 1:
                raise Refused(field, share, "must be at least 0.5 and below 1")

    def check(self, languages: Sequence[str]) -> None:
        """Refused if the rules cannot be applied to text in these languages."""
        if self.language == "script":
            check_script_languages(languages)
        sentences = self.alignment.sentences
        if sentences is not None and (found := set(sentences.languages)) != set(languages):
            remedy = f"is in {sorted(found)}, the corpus in {sorted(languages)}; null leaves alignment out"
            raise Refused("pairs", self.alignment.pairs, remedy)

    def language_of_rows(
        self, tokens: Tokens, texts: Sequence[str], languages: Sequence[str]
    ) -> UInt8[np.ndarray, " token"]:
        """The language each token counts for, as an index into `languages`."""
        if self.language == "document":
            return tokens.language
        script = script_of_rows(tokens.token_ids, tokens.sequence, script_of_tokens(texts))
        plain = [plain_of(language) for language in languages]
        return np.array([plain.index(language) for language in SCRIPTS], np.uint8)[script]

    @cached_property
    def describe(self) -> dict[str, Any]:
        """The rules as JSON."""
        patterns: Any = self.patterns
        sentences = self.alignment.sentences
        return {
            "version": VERSION,
            "patterns": {"rule": type(patterns).__name__.lower(), **asdict(patterns)},
            "language": {"rule": self.language, "threshold": self.threshold},
            "space": dict(self.space.fingerprint),
            "monosemanticity": asdict(self.monosemanticity),
            "bilingual": self.bilingual,
            "alignment": {**asdict(self.alignment), "pairs": sentences and sentences.checksum("")},
            "contextual": asdict(self.contextual),
            **({} if self.recovered is None else {"recovered": self.recovered}),
            "resamples": self.resamples,
            "seed": self.seed,
        }
