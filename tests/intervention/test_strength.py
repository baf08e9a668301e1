from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from bisae.corpus.tokens import TokenizedDocument
from bisae.edits.operation import FeatureEdit, StreamPair
from bisae.edits.patched_lm import DonorReader
from bisae.intervention import strength
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.specs import InterventionSpec
from bisae.intervention.strength import Strength
from bisae.lm.model import Checkpoint
from bisae.sae import SparseAutoencoder
from tests.intervention.small_results import cell
from tests.pair_of_lms import BOS


@pytest.fixture
def sentences(final: Checkpoint) -> list[TokenizedDocument]:
    tokenizer = AutoTokenizer.from_pretrained(Path(final.folder))
    texts = [
        "He gave me a book.",
        "Where does she live? I do not know.",
        "彼は私に本をくれた。",
        "今日は雨だ。",
    ]
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    return [TokenizedDocument(0, number, np.asarray(one, np.int32)) for number, one in enumerate(ids)]


def made(donor: DonorReader, sae: SparseAutoencoder, sentences: list[TokenizedDocument], context: int = 6) -> Strength:
    table = pd.DataFrame(index=range(sae.latents))
    return Strength(donor, {2: LayerFeatures(cell(2), sae, "sae", table, "rules")}, sentences, BOS, context, 3)


def heads(sentences: list[TokenizedDocument], donor: DonorReader) -> Iterator[torch.Tensor]:
    """The stream after BOS, sentence by sentence."""
    for sentence in sentences:
        with torch.no_grad():
            yield donor.read(torch.tensor([[BOS, *sentence.ids[:5].tolist()]]))[2][0, 1:]


def test_it_is_the_mean_length_of_what_the_features_say_of_each_token_but_bos(
    donor: DonorReader, sae: SparseAutoencoder, sentences: list[TokenizedDocument]
) -> None:
    chosen = np.arange(64) % 3 == 0
    lengths = []
    for stream in heads(sentences, donor):
        codes = sae.encode(sae.normalize(stream)[0]).dense() * torch.tensor(chosen)
        lengths += torch.linalg.vector_norm(codes @ sae.W_dec, dim=1).tolist()
    assert made(donor, sae, sentences).of(2, chosen) == pytest.approx(np.mean(lengths), rel=1e-5)
    assert made(donor, sae, sentences).of(2, np.zeros(64, bool)) == 0


def test_a_random_control_is_added_as_strongly_as_what_it_stands_for(
    donor: DonorReader, sae: SparseAutoencoder, sentences: list[TokenizedDocument]
) -> None:
    of, like, drawn = made(donor, sae, sentences), np.arange(64) < 20, np.arange(64) >= 50
    features = {2: of.layers[2]}

    def added(chosen: np.ndarray, like: np.ndarray | None) -> float:
        setting = InterventionSpec(
            "en", "", None, "add", "donor", 0.5, {2: chosen}, None if like is None else {2: like}
        )
        edit = setting.edits(features, of.of)[2]
        assert isinstance(edit, FeatureEdit)
        lengths = []
        for stream in heads(sentences, donor):
            unit = torch.nn.functional.normalize(stream, dim=1)
            change = edit(StreamPair(stream, unit, torch.ones(1, len(stream), dtype=torch.bool))) - stream
            lengths += torch.linalg.vector_norm(change, dim=1).tolist()
        return float(np.mean(lengths))

    assert added(drawn, like) == pytest.approx(added(like, None), rel=1e-4)
    assert added(drawn, None) != pytest.approx(added(like, None), rel=1e-2)
    nothing = np.zeros(64, bool)  # what says nothing cannot be made to say more
    assert added(nothing, like) == 0


def test_of_a_long_text_every_so_many_th_document_is_read(
    donor: DonorReader, sae: SparseAutoencoder, sentences: list[TokenizedDocument], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = np.ones(64, bool)
    whole = made(donor, sae, sentences[::2]).of(2, chosen)
    monkeypatch.setattr(strength, "TOKENS", 8)
    assert made(donor, sae, sentences).of(2, chosen) == whole
