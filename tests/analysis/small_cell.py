"""A small cell described: random SAE and activations, tokens in two languages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bisae.analysis.feature_table import CodedCell, Described, Side, Text, describe
from bisae.analysis.rules import AlignmentRule, ContextualRule, CrossRule, MonosemanticityRule, RetrievalRule, Rules
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import CodesFolder, encode
from bisae.features.contexts import Top
from bisae.features.measures.clusters import GlobalClusters
from bisae.features.spaces.shipped import ShippedSpace
from bisae.sae import TopK
from tests.features.small_text import random_sae, reading_of, tokens_of

CLUSTERS = np.array([0, 0, 1, 2, 2, 3, 4])
WORDS = np.array([0, 1, 0, 1, 0, 1, -1], np.int8)
LANGUAGES = ("fr", "de")


def rules(**changed: Any) -> Rules:
    given: dict[str, Any] = {
        "patterns": Top(20),
        "language": "document",
        "threshold": 0.7,
        "space": ShippedSpace("average", 0.62),
        "monosemanticity": MonosemanticityRule(shuffles=10, quantile=0.9),
        "bilingual": "monosemantic",
        "cross": CrossRule(0.1, 0.05),
        "alignment": AlignmentRule(None, 99, 0.2, 0.1),
        "retrieval": RetrievalRule(None, "cells"),
        "contextual": ContextualRule(0.5, 0.1),
        "recovered": None,
        "resamples": 30,
        "seed": 0,
    }
    return Rules(**{**given, **changed})


def described(
    folder: Path, chosen: Rules, sides: Sequence[Side] | None = None, dead: int = 4, script: np.ndarray | None = None
) -> tuple[Described, AnalysedActivations, TopK, np.ndarray]:
    """Also what it was made from, and the dense codes."""
    reading, sae = reading_of(tokens_of([4, 7, 5, 6, 3, 8] * 10)), random_sae(latents=12)
    with torch.no_grad():
        sae.b_enc[dead] = -1000.0
    values = next(reading.rows(np.arange(len(reading.tokens)), [2]))[1][2]
    codes = CodesFolder(folder / "codes", sae.latents)
    codes.write(0, encode(sae, 0, values))
    codes.finish([0])
    text = Text(LANGUAGES, reading.tokens.language, GlobalClusters(CLUSTERS), WORDS, script)
    dense = sae.encode(values).dense().detach().numpy()
    (found,) = describe(reading, [CodedCell(2, sae, codes, sides)], text, chosen)
    return found, reading, sae, dense
