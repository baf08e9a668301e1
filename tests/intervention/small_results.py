"""Rows of interventions made up: a cell, a text of which nothing is read, and losses drawn at random."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bisae.cells.find import FoundCell
from bisae.intervention.measures import PerplexityText
from bisae.intervention.results import InterventionResult
from bisae.lm.generation import CausalLM


def cell(layer: int) -> FoundCell:
    return FoundCell(Path(f"cell{layer}"), "lm", 2048, layer, "topk", f"hash{layer}", {}, {}, {})


@dataclass(frozen=True)
class Languages:
    """A corpus that says its languages only."""

    name: str = "none"
    languages: tuple[str, ...] = ("en", "ja")

    def checksum(self, split: str) -> str:
        return split

    def documents(self, split: str, language: int) -> Any:
        raise AssertionError("nothing is read")


@dataclass
class Marked:
    """A measure that is a number."""

    name: ClassVar[str] = "marked"
    number: int

    def texts(self) -> int:
        return 4

    @property
    def unwritten(self) -> "Marked":
        return self

    @property
    def made_from(self) -> Mapping[str, Any]:
        return {"number": self.number}

    def of(self, lm: CausalLM) -> pd.DataFrame:
        return pd.DataFrame({"number": [self.number]})


def text(mix: Mapping[str, float] | None = None) -> PerplexityText:
    return PerplexityText(Languages(), None, 4, "validation", None, None, 16, 8, mix)


def row(folder: Path, kind: str, recipient: int = 512, model: str = "lm", **axes: Any) -> InterventionResult:
    name = "-".join([model, str(recipient), kind, *map(str, axes.values())])
    identity = {"lm": {"weights": f"{model} {recipient}", "dtype": "float32"}}
    return InterventionResult(
        folder / "rows" / name, {"model": model, "recipient": recipient, "kind": kind, **axes}, identity
    )


def losses(seed: int, harder: float = 0.0, documents: int = 40) -> pd.DataFrame:
    """The same documents whatever the seed; `harder` nats a token more."""
    tokens = np.random.default_rng(0).integers(5, 60, documents)
    nats = tokens * (3.0 + harder) + 0.01 * np.random.default_rng(seed).normal(size=documents)
    return pd.DataFrame({"language": np.arange(documents) % 2, "nats": nats, "tokens": tokens})
