"""Sentence pairs of random activations, against means computed sentence by sentence."""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from bisae.analysis.rules import RetrievalRule
from bisae.analysis.sentence_pairs import PairsRead
from bisae.corpus.corpus import Document
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.measures.retrieval import pools, retrieve
from bisae.features.tokens import Tokens
from tests.activations.fake_source import FakeSource
from tests.features.small_text import InMemory, random_sae

PAIRS, WIDTH, VOCABULARY = 25, 6, 7
WORDS = np.arange(VOCABULARY) < 5
WITHOUT_WORDS = 11


class OwnPairs:
    name, languages, pairs = "own", ("fr", "de"), PAIRS

    def checksum(self, split: str) -> str:
        return split

    def documents(self, split: str, language: int) -> Iterator[Document]:
        return iter(())


def pairs_read(candidates: int | None = 8, layers: tuple[int, ...] = (0, 2)) -> tuple[PairsRead, InMemory]:
    random = np.random.default_rng(0)
    lengths = random.integers(2, 7, 2 * PAIRS)
    sentence = np.repeat(np.arange(2 * PAIRS), lengths)
    ids = random.integers(VOCABULARY, size=len(sentence)).astype(np.int32)
    ids[np.append(True, np.diff(sentence) > 0)] = 0  # a word each
    ids[sentence == WITHOUT_WORDS] = VOCABULARY - 1
    position = np.concatenate([np.arange(length, dtype=np.int16) for length in lengths])
    tokens = Tokens(ids, (sentence // PAIRS).astype(np.uint8), (sentence % PAIRS).astype(np.int32), position)
    meaning = torch.randn(PAIRS, WIDTH, generator=torch.Generator().manual_seed(1))[sentence % PAIRS]
    noise = torch.randn(3, len(ids), WIDTH, generator=torch.Generator().manual_seed(2))
    stored = InMemory({layer: (meaning + 2 * noise[layer]).bfloat16() for layer in (0, 1, 2)})
    reading = AnalysedActivations(FakeSource(d_model=WIDTH), tokens, [0, 1, 2], stored)
    return PairsRead(reading, OwnPairs(), WORDS, RetrievalRule(candidates, "all"), layers, seed=3), stored


def means(tokens: Tokens, values: np.ndarray) -> list[np.ndarray]:
    """The mean over words of each sentence that has some in both languages, by language."""
    kept = [number for number in range(PAIRS) if number != WITHOUT_WORDS]
    where = [
        [(tokens.language == side) & (tokens.document == n) & WORDS[tokens.token_ids] for n in kept] for side in (0, 1)
    ]
    return [np.stack([values[rows].mean(0) for rows in side]) for side in where]


def shown(table: pd.DataFrame, space: str, layer: int, centred: bool) -> dict[str, float]:
    rows = table[(table["space"] == space) & (table["layer"] == layer) & (table["centred"] == centred)]
    return dict(zip(rows["direction"], rows["value"], strict=True))


@pytest.mark.parametrize("centred", [False, True])
def test_streams_and_codes_retrieve_by_their_means_over_words(centred: bool) -> None:
    read, stored = pairs_read()
    sae = random_sae(latents=12)
    found = read.of([(1, sae)])[0]
    tokens, pool = read.reading.tokens, pools(PAIRS - 1, 8, 3)
    dense = {number: stored.values[number].double().numpy() for number in stored.values}
    codes = sae.encode(stored.values[1]).dense().detach().double().numpy()
    for space, layer, values in (("stream", 0, dense[0]), ("stream", 2, dense[2]), ("codes", 1, codes)):
        left, right = means(tokens, values)
        expected = retrieve(left, right, pool, centred)
        of_space = shown(found.retrieval, space, layer, centred)
        assert of_space["fr-de"] == expected.forward.mean() and of_space["de-fr"] == expected.backward.mean()
        assert of_space["both"] == pytest.approx((expected.forward.mean() + expected.backward.mean()) / 2)
    assert not len(found.retrieval.query("space == 'stream' and layer == 1"))
    assert (found.retrieval[["pairs", "candidates", "chance"]].to_numpy() == [24, 8, 1 / 8]).all()
    assert 1 / 8 < shown(found.retrieval, "stream", 0, True)["both"] < 1


def test_a_second_cell_reads_its_own_layer_only_and_knows_the_streams() -> None:
    read, stored = pairs_read()
    first = read.of([(1, random_sae(latents=12))])[0]
    asked: list[int] = []
    gather = stored.gather_ascending
    stored.gather_ascending = lambda layer, *rest: (asked.append(layer), gather(layer, *rest))[1]  # type: ignore
    second = read.of([(2, random_sae(latents=12, seed=4))])[0]
    assert asked == [2]
    streams = [table.retrieval.query("space == 'stream'").reset_index(drop=True) for table in (first, second)]
    pd.testing.assert_frame_equal(*streams)
    metrics = second.metrics(2)
    assert metrics["retrieval_stream"] == shown(second.retrieval, "stream", 2, True)["both"]
    assert metrics["retrieval_codes"] == shown(second.retrieval, "codes", 2, True)["both"]
    low, value, high = (metrics[f"retrieval_stream{end}"] for end in ("_doc_low", "", "_doc_high"))
    assert low < value < high  # type: ignore[operator]
    assert "retrieval_stream" not in first.metrics(1)


def test_fewer_pairs_than_candidates_leave_retrieval_out_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    read, _ = pairs_read(candidates=25)
    with caplog.at_level(logging.WARNING):
        found = read.of([(1, random_sae(latents=12))])[0]
    assert found.retrieval.empty and found.metrics(1) == {}
    assert "retrieval.candidates=25: only 24 sentence pairs" in caplog.text
    silent, _ = pairs_read(candidates=None)
    assert silent.of([(1, random_sae(latents=12))])[0].retrieval.empty
    assert [
        (side.words != other.words).nnz
        for side, other in zip(
            found.sides or (), pairs_read()[0].of([(1, random_sae(latents=12))])[0].sides or (), strict=True
        )
    ] == [0, 0]
