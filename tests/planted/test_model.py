"""A planted LM in the place of one with weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from bisae.activations.cached import Cached
from bisae.activations.rolling import Rolling
from bisae.activations.store import Source, Store
from bisae.activations.streaming import Streaming
from bisae.cli.train import train
from bisae.features.analysed_activations import AnalysedActivations
from bisae.features.tokens import Tokens, pieces, token_texts
from bisae.grid.lm_shape import LMShape
from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint
from bisae.planted.space import PlantedSpace
from bisae.planted.truth import WORD, Truth
from bisae.runtime.errors import ConfigError, Refused
from tests.planted.worlds import LEXICON, corpus, model, node

OTHER: dict[str, Any] = {
    "lexicon": {**LEXICON, "seed": 1},
    "steps": [0, 1024],
    "layers": 5,
    "d_model": 13,
    "words": 5,
    "grammar": 4,
    "meanings": 7,
    "mixed": 2,
    "contextual": 2,
    "single": 5,
    "nested": 3,
    "correlated": 1,
    "shares": [0.8, 0.2],
    "presence": 0.8,
    "second": [0.1, 0.2],
    "strength": [1, 1],
    "spread": 0.1,
    "noise": 0.2,
    "correlation": 0.1,
    "deaths": 0.9,
    "seed": 1,
}


def lm_pass(checkpoint: Checkpoint, **changes: Any) -> LMPass:
    settings = {"context": 32, "shortest": 8, "lm_batch": 4, "shard_batches": 2, "lm_dtype": "float32", "device": "cpu"}
    return LMPass(checkpoint, corpus(), "validation", **{**settings, **changes})


def same(first: Truth, second: Truth) -> bool:
    return all(np.array_equal(getattr(first, name), value) for name, value in vars(second).items() if name[0] != "_")


@pytest.mark.parametrize("key", OTHER)
def test_every_setting_changes_the_truth_and_the_fingerprint(tmp_path: Path, key: str) -> None:
    assert set(OTHER) == set(node("model")) - {"name", "unpack_to", "hook"}
    one, other = model(tmp_path), model(tmp_path, **{key: OTHER[key]})
    assert not same(one.truth(), other.truth()) and same(one.truth(), model(tmp_path, name="n").truth())
    assert one.checkpoint(1024).weights != other.checkpoint(1024).weights
    assert one.checkpoint(1024).folder != other.checkpoint(1024).folder
    assert (one.checkpoint(1024).tokenizer == other.checkpoint(1024).tokenizer) == (key != "lexicon")


def test_checkpoints_differ_by_step_and_their_truth_lies_beside_the_tokenizer(tmp_path: Path) -> None:
    lm = model(tmp_path)
    first, last = lm.checkpoint(0), lm.checkpoint("final")
    assert (first.step, last.step) == (0, 1024) and first.weights != last.weights and first.folder == last.folder
    assert same(lm.truth(), last.truth) and last.truth.world["noise"] == lm.noise
    assert last.parameters == lm.features * 12 == last.truth.directions.size
    for step in (65, True, "last", None):
        with pytest.raises(Refused) as refused:
            lm.checkpoint(step)
        assert refused.value.field == "checkpoint"


def test_its_tokens_are_the_words_of_the_text_and_join_to_it_again(tmp_path: Path) -> None:
    tokenizer = model(tmp_path).checkpoint(0).load_tokenizer()
    text, words = next(corpus().documents("sae", 1)).text, corpus()._words
    ids = tokenizer(text).input_ids
    assert [words.words[number] for number in ids] == text.split()
    assert "".join(pieces(tokenizer, ids)).strip() == text
    assert [one.strip() for one in token_texts(tokenizer)] == words.words
    assert tokenizer.bos_token_id is None


def test_it_is_read_as_any_lm_and_gives_what_the_truth_says(tmp_path: Path) -> None:
    source = lm_pass(model(tmp_path).checkpoint(256))
    assert isinstance(source, Source)
    truth = model(tmp_path).truth()
    for shard in range(2):
        tokens, found = source.tokens(shard), source.activations(shard, [0, 3])
        assert tokens is not None
        for layer in (0, 3):
            expected = truth.stream(tokens.token_ids, tokens.position, 256, layer)
            assert torch.equal(found[layer], torch.from_numpy(expected).float().bfloat16())


def test_cached_rolling_and_streaming_read_the_same(tmp_path: Path) -> None:
    cached = Cached(str(tmp_path / "cached"), 1, evict=False, verify=True, layers=[])
    stores: list[Store] = [cached, Rolling(str(tmp_path / "rolling"), 1), Streaming()]
    found = []
    for store in stores:
        source = lm_pass(model(tmp_path).checkpoint("final"))
        tokens = Tokens.read(source, None)
        reading = AnalysedActivations.open(store, source, tokens, [1, 4], "test")
        parts = [values for _, values in reading.rows(np.arange(len(tokens)), [1, 4])]
        found.append({layer: torch.cat([part[layer] for part in parts]) for layer in (1, 4)})
        reading.close()
    for layer in (1, 4):
        assert len(found[0][layer]) > 500 and found[0][layer].abs().sum() > 0
        assert torch.equal(found[0][layer], found[1][layer]) and torch.equal(found[0][layer], found[2][layer])


def test_the_space_clusters_words_by_their_true_meaning_and_knows_no_other_vocabulary(
    tmp_path: Path, step512: Checkpoint
) -> None:
    checkpoint = model(tmp_path).checkpoint(0)
    clustering: Any = PlantedSpace().clustering(checkpoint.load_tokenizer(), checkpoint.tokenizer)
    np.testing.assert_array_equal(clustering.table, corpus()._words.token_meaning)
    with pytest.raises(Refused, match="space=planted"):
        PlantedSpace().clustering(step512.load_tokenizer(), "")


def test_what_needs_predictions_or_weights_is_refused_in_words(tmp_path: Path) -> None:
    checkpoint = model(tmp_path).checkpoint(0)
    with pytest.raises(Refused, match=r"model=planted: is planted: it has activations, but predicts no tokens"):
        load_causal_lm(checkpoint, torch.float32, torch.device("cpu"))
    with pytest.raises(Refused, match="nothing to plan|to plan for"):
        LMShape.of(node("model"), "final")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lexicon", None),
        ("steps", []),
        ("steps", [64, 0]),
        ("steps", [0, 2**31]),
        ("second", [1, 0]),
        ("strength", [1]),
        ("shares", [1]),
        ("shares", [0.5, 0.4]),
        ("meanings", 25),
        ("words", 37),
        ("nested", 7),
        ("correlated", 7),
    ],
)
def test_settings_from_which_no_world_can_be_made_are_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(Refused) as refused:
        model(tmp_path, **{key: value}).truth()
    assert refused.value.field == key


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("model=planted", "model.lexicon"),
        ("model=planted corpus=planted model.presence=2", "model.presence"),
        ("model=planted corpus=planted model.words=-1", "model.words"),
        ("model=planted corpus=planted checkpoint=3", "checkpoint"),
        ("model=planted corpus=planted corpus.lexicon.forms=1", "corpus.lexicon.forms"),
        ("model=planted corpus=planted corpus.splits.sae=0", "corpus.splits"),
        ("model=planted corpus=planted data.split=test", "data.split"),
    ],
)
def test_bad_worlds_are_refused_by_key(config: Callable[..., DictConfig], overrides: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        train(config("checkpoint=final", *overrides.split()))
    assert refused.value.key == key


@pytest.mark.parametrize("of_words", [0, 36])
def test_worlds_without_a_kind_and_with_as_many_as_there_are_can_be_made(tmp_path: Path, of_words: int) -> None:
    none = dict.fromkeys(("grammar", "mixed", "contextual", "single", "nested", "correlated"), 0)
    truth = model(tmp_path, words=of_words, **none).truth()
    assert truth.features == of_words + 6 + 2 + 12
    words = np.flatnonzero(truth.kind == WORD).tolist()
    places = {
        (int(truth.token_meaning[truth.tokens_of(one)[0]]), int(truth.of_language[one].argmax())) for one in words
    }
    assert len(places) == of_words  # no two of the same words
