"""Small planted worlds."""

from pathlib import Path
from typing import Any

import yaml

from bisae.planted.corpus import PlantedCorpus
from bisae.planted.model import PlantedModel
from tests.conftest import ROOT

LEXICON = {"languages": ["en", "ja"], "meanings": 24, "forms": 2, "function_words": 6, "seed": 0}
SMALL = {"d_model": 12, "words": 6, "grammar": 3, "meanings": 6, "mixed": 3, "contextual": 3, "single": 4, "nested": 4}


def node(group: str) -> dict[str, Any]:
    """The values of conf/<group>/planted.yaml."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "conf" / group / "planted.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in read.items() if not key.startswith("_")}


def model(folder: Path, **settings: Any) -> PlantedModel:
    """A planted LM with few features."""
    small = {**node("model"), "lexicon": LEXICON, "unpack_to": str(folder), "correlated": 2, **SMALL}
    return PlantedModel(**{**small, **settings})


def corpus(**settings: Any) -> PlantedCorpus:
    """Its text."""
    small = {"lexicon": LEXICON, "splits": {"sae": 40, "validation": 10}, "pairs": 30, "topics": 3}
    return PlantedCorpus(**{**node("corpus"), **small, **settings})
