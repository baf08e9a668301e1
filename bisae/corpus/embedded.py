"""The shipped corpus."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bisae.corpus.corpus import Document
from bisae.corpus.pairs import documents, read_pairs
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Index, Name

EMBEDDED = Path(__file__).parents[1] / "embedded" / "corpus"


@dataclass(frozen=True)
class EmbeddedCorpus:
    """The shipped Tatoeba pairs. A document is six sentences of neighbouring ids in one language, one on each line."""

    name: Name
    seed: Index

    @property
    def languages(self) -> tuple[str, ...]:
        return ("en", "ja")

    def checksum(self, split: str) -> str:
        splits = json.loads((EMBEDDED / "corpus.json").read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            raise Refused("split", split, f"the embedded corpus has {sorted(splits)}")
        return f"{splits[split]['sha256']}-{self.seed}"

    def documents(self, split: str, language: int) -> Iterator[Document]:
        _, pairs = read_pairs(EMBEDDED / f"{split}.tsv.xz")
        texts = ["\n".join(pair.texts[language] for pair in group) for group in documents(pairs)]
        order = list(range(len(texts)))
        random.Random(f"{self.seed} {language}").shuffle(order)
        return (Document(number, texts[number]) for number in order)
