"""The measure of a concept swap, against the LM's own probabilities; and its interventions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import PreTrainedModel

from bisae.edits.operation import StreamPair
from bisae.edits.patched_lm import patched
from bisae.edits.swap import CounterpartReader, FeatureSwap, swapped_stream
from bisae.intervention.layer_features import LayerFeatures
from bisae.intervention.specs import EditSettings, planned
from bisae.intervention.swap import SwappedWords, SwapStrength
from bisae.lm.generation import CausalLM
from bisae.runtime.errors import Refused
from bisae.sae import SparseAutoencoder
from bisae.translation.word_swaps import SwapPrompt
from bisae.translation.words import Word
from tests.intervention.small_results import cell
from tests.pair_of_lms import BOS, CPU

NAN = float("nan")


def word(number: int, sentences: int = 5, shared: bool = False) -> Word:
    """A word of two tokens, whose translation has one or two."""
    translated = (900 + number,) if number % 2 else (900 + number, 950 + number)
    return Word((500 + number, 600 + number), translated, f"w{number}", f"t{number}", sentences, shared)


def prompt(pair: int, one: int, other: int, length: int = 4, shared: bool = False) -> SwapPrompt:
    ids = [BOS, *range(700, 700 + length), *word(one).ids, *range(800, 803 + length)]
    return SwapPrompt(pair, word(one, shared=shared), word(other, shared=shared), tuple(ids), 1 + length)


WORDS = SwappedWords(
    {
        "en_ja": [prompt(0, 1, 2), prompt(0, 2, 1), prompt(1, 3, 5, 2), prompt(2, 4, 6, 3, shared=True)],
        "ja_en": [prompt(0, 7, 8, 5), prompt(1, 9, 10, 6)],
    },
    batch=4,
)


@torch.no_grad()
def log_probability(lm: PreTrainedModel, ids: tuple[int, ...], following: tuple[int, ...]) -> float:
    """In float64: of `following` after `ids`."""
    logits = lm(input_ids=torch.tensor([[*ids, *following]])).logits[0].double()
    places = range(len(ids) - 1, len(ids) + len(following) - 1)
    return sum(float(logits[place].log_softmax(0)[token]) for place, token in zip(places, following, strict=True))


def test_the_contrast_is_what_the_lm_says_and_the_whole_stream_at_layer_0_makes_it_that_of_the_other_word(
    lm: PreTrainedModel, step512: Any
) -> None:
    reader = CounterpartReader(step512, [0], torch.float32, CPU, WORDS.swaps)
    measured = CausalLM(lm, step512.load_tokenizer(), 4)
    plain = WORDS.of(measured)
    with patched(lm, {0: swapped_stream}, reader, [BOS], places=WORDS.swaps.places):
        patch = WORDS.of(measured)
    for number, one in enumerate(WORDS.all):
        other_ids = (*one.ids[: one.place], *one.other.ids, *one.ids[one.place + 2 :])
        for table, ids in ((plain, one.ids), (patch, other_ids)):
            mine, other = (log_probability(lm, ids, part.translated_ids) for part in (one.word, one.other))
            assert table["nats"][number] == pytest.approx(-mine, abs=2e-4)
            assert table["nats_other"][number] == pytest.approx(-other, abs=2e-4)
    assert (plain["nats"] - patch["nats"]).abs().min() > 1e-3


def test_every_pair_of_words_counts_the_same_and_shared_words_stand_apart() -> None:
    rows = [("en_ja", 0, False, 1.0, 3.0), ("en_ja", 0, False, 2.0, 3.0), ("en_ja", 1, False, 9.0, 2.0)]
    rows += [("en_ja", 2, True, 0.5, 1.0), ("ja_en", 0, False, 4.0, 4.5)]
    table = pd.DataFrame(rows, columns=["way", "pair", "shared", "nats", "nats_other"])
    found = WORDS.contrasts(table, 400, seed=1)
    assert {name: values[0] for name, values in found.items()} == {
        "contrast_en_ja": ((-2.0 - 1.0) / 2 + 7.0) / 2,
        "contrast_shared_en_ja": -0.5,
        "contrast_ja_en": -0.5,
    }
    drawn = found["contrast_en_ja"][1:]
    assert set(np.unique(drawn[~np.isnan(drawn)])) >= {-1.5, 2.75, 7.0} and np.nanmin(drawn) == -1.5
    again = WORDS.contrasts(table.assign(nats=table["nats"] + 1), 400, seed=1)  # the same resamples: paired
    known = ~np.isnan(found["contrast_en_ja"])
    np.testing.assert_allclose((again["contrast_en_ja"] - found["contrast_en_ja"])[known], 1.0)


def features(sae: SparseAutoencoder, layer: int = 2) -> LayerFeatures:
    classes = np.array(["English", "Japanese", "Mixed", "dead"])[np.arange(sae.latents) % 4]
    columns = {"class": classes, "bilingual": False, "aligned": classes == "Mixed", "maximum": 1.0}
    table = pd.DataFrame(columns).assign(mass_en=np.arange(sae.latents) % 7, mass_ja=1.0)
    return LayerFeatures(cell(layer), sae, "sae", table, "rules")


def test_a_swap_has_the_whole_stream_each_kind_and_random_features_scaled_to_it(sae: SparseAutoencoder) -> None:
    layers, control = {2: features(sae)}, {"random": 2, "shuffled": True, "self": True}
    edit = EditSettings("swap", "donor", [0.3, 1.0])
    specs = planned(layers, ["en", "ja"], edit, ["en", "mixed", "all"], control, None, 0)
    assert [(one.kind, one.control, one.seed) for one in specs] == [
        ("none", "", None),
        ("stream", "", None),
        *(("en", control, seed) for control, seed in (("", None), ("random", 0), ("random", 1))),
        *(("mixed", control, seed) for control, seed in (("", None), ("random", 0), ("random", 1))),
        ("all", "", None),
    ]
    assert all(one.alone and np.isnan(one.coefficient) for one in specs[1:])
    (stream,) = specs[1].edits(layers, lambda *_: NAN).values()
    assert stream is swapped_stream
    strengths = {specs[2].chosen[2].tobytes(): 3.0, specs[3].chosen[2].tobytes(): 2.0}
    edits = [one.edits(layers, lambda _, chosen: strengths[chosen.tobytes()])[2] for one in specs[2:4]]
    assert [edit.coefficient for edit in edits if isinstance(edit, FeatureSwap)] == [1.0, 1.5]


def test_strength_is_the_mean_length_of_the_change_at_the_words(sae: SparseAutoencoder, step512: Any) -> None:
    reader = CounterpartReader(step512, [2], torch.float32, CPU, WORDS.swaps)
    of_layer = features(sae)
    chosen = (of_layer.table["class"] == "Mixed").to_numpy()
    own, other = [], []
    for one in WORDS.all:
        places = slice(one.place, one.place + 2)
        instead = torch.tensor([[*one.ids[: one.place], *one.other.ids, *one.ids[one.place + 2 :]]])
        own.append(reader.read(torch.tensor([one.ids]))[2][0, places].clone())
        other.append(reader.read(instead)[2][0, places].clone())
    streams = StreamPair(torch.cat(own), torch.cat(other), torch.ones(1, 2 * len(own), dtype=torch.bool))
    change = (FeatureSwap(sae, torch.tensor(chosen))(streams) - streams.recipient).detach()
    with torch.no_grad():
        measured = SwapStrength(reader, {2: of_layer}, WORDS, 4).of(2, chosen)
    assert measured > 0.01 and measured == pytest.approx(float(change.norm(dim=1).mean()), rel=1e-4)


def test_texts_that_the_lm_cannot_read_are_refused() -> None:
    WORDS.check(30)
    with pytest.raises(Refused, match="tasks=texts of 20 tokens: the LM can read at most 10"):
        WORDS.check(10)
