"""How often intervals of an analysis hold the mean over all texts: many texts are drawn from one and analysed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from bisae.analysis.feature_table import CodedCell, Text, describe
from bisae.analysis.rules import Rules
from bisae.analysis.summary import Metrics, summarize
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.codes import CodesFolder, encode
from bisae.features.measures.clusters import GlobalClusters
from bisae.features.tokens import Tokens
from bisae.sae import SparseAutoencoder
from tests.activations.fake_source import FakeSource
from tests.features.small_text import InMemory

LANGUAGES = ("fr", "de")


def drawn(
    tokens: Tokens, values: Float[Tensor, "token d_model"], documents: int, random: np.random.Generator
) -> tuple[Tokens, Float[Tensor, "token d_model"]]:
    """A text of so many documents of each language, drawn from `tokens`, whose documents are a sequence each."""
    starts, stops, language = tokens.borders[:-1], tokens.borders[1:], tokens.language
    of = [random.choice(np.flatnonzero(language[starts] == number), documents, replace=False) for number in range(2)]
    pieces = [np.arange(starts[one], stops[one]) for one in np.stack(of, 1).ravel()]
    rows = np.concatenate(pieces)
    number = np.repeat(np.arange(len(pieces), dtype=np.int32), list(map(len, pieces)))
    text = Tokens(tokens.token_ids[rows], language[rows], number, tokens.position[rows])
    return text, values[torch.from_numpy(rows)]


def analysed(
    text: Tokens,
    values: Float[Tensor, "token d_model"],
    sae: SparseAutoencoder,
    clusters: Int32[np.ndarray, " vocabulary"] | Int64[np.ndarray, " vocabulary"],
    rules: Rules,
    folder: Path,
) -> Metrics:
    """What `analyze.py` says of the cell on this text."""
    reading = AnalysedActivations(FakeSource(d_model=values.shape[1]), text, [1], InMemory({1: values.bfloat16()}))
    codes = CodesFolder(folder, sae.latents)
    for rows, at in reading.rows(np.arange(len(text)), [1]):
        codes.write(int(rows[0]), encode(sae, int(rows[0]), at[1]))
    codes.finish([start for start, _ in reading.windows])
    about = Text(LANGUAGES, text.language, GlobalClusters(clusters), np.full(len(clusters), -1, np.int8), None)
    return summarize(next(describe(reading, [CodedCell(1, sae, codes, None)], about, rules)), LANGUAGES, rules)


def covered(found: Sequence[Metrics], names: Sequence[str], kind: str) -> Mapping[str, Bool[np.ndarray, " text"]]:
    """Of each metric: whose interval `<metric>_<kind>low` ... `high` holds the mean over all texts."""
    of = {key: np.array([metrics[key] for metrics in found], float) for key in found[0]}
    means = {name: of[name].mean() for name in names}
    return {
        name: (of[f"{name}_{kind}low"] <= means[name]) & (means[name] <= of[f"{name}_{kind}high"]) for name in names
    }
