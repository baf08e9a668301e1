import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from bisae.config.instantiate import instantiate
from bisae.features.measures.clusters import centred
from bisae.features.spaces.lm_space import LMSpace
from bisae.lm.model import Checkpoint
from bisae.runtime.errors import Refused


class Ladder:
    """A choice of `model` with one checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.found = checkpoint

    def checkpoint(self, step: object) -> Checkpoint:
        return self.found


def test_layer_0_is_the_input_embeddings_and_others_the_stream_of_a_token_alone(step512: Checkpoint) -> None:
    tokenizer = AutoTokenizer.from_pretrained(step512.folder)
    lm: Any = AutoModelForCausalLM.from_pretrained(step512.folder, dtype=torch.float32)
    embeddings = lm.get_input_embeddings().weight.detach().numpy()
    found = LMSpace(Ladder(step512), 512, 0, "average", 0.4).vectors(tokenizer)
    assert np.array_equal(found, centred(embeddings, embeddings.mean(0)))
    deep = LMSpace(Ladder(step512), 512, 2, "average", 0.4).vectors(tokenizer)
    ids = torch.tensor([[tokenizer.bos_token_id, token] for token in range(len(tokenizer))])
    with torch.no_grad():
        streams = lm(ids, output_hidden_states=True).hidden_states[2][:, 1].numpy()
    assert np.allclose(deep, centred(streams, streams.mean(0)), atol=1e-5)


def test_a_layer_that_is_not_there_is_refused(step512: Checkpoint) -> None:
    for layer in (-1, 5):
        with pytest.raises(Refused, match=f"^space=lm: layer={layer}: embedded has the layers 0 to 4"):
            LMSpace(Ladder(step512), 512, layer, "average", 0.4).fingerprint  # noqa: B018


def test_an_lm_with_another_vocabulary_is_refused(step512: Checkpoint, byte_level: Any) -> None:
    with pytest.raises(Refused, match="^space=lm: model=embedded: has another vocabulary"):
        LMSpace(Ladder(step512), 512, 0, "average", 0.4).clustering(byte_level, "")


def test_the_fingerprint_tells_weights_and_layers_apart_but_not_places(step512: Checkpoint, tmp_path: Path) -> None:
    def fingerprint(checkpoint: Checkpoint, layer: int) -> dict[str, object]:
        return LMSpace(Ladder(checkpoint), 512, layer, "average", 0.4).fingerprint

    first = fingerprint(step512, 0)
    assert first == fingerprint(replace(step512, folder=tmp_path), 0)
    assert first != fingerprint(step512, 1) and first != fingerprint(replace(step512, weights="other"), 0)


def test_an_lm_without_bridging_documents_holds_translations_apart(config: Callable[..., DictConfig]) -> None:
    space = instantiate(config("+space=lm", "model@space.model=embedded_control").space)
    tokenizer = AutoTokenizer.from_pretrained(space.checkpoint.folder)
    vectors, vocabulary = space.vectors(tokenizer), tokenizer.get_vocab()
    assert vectors[vocabulary["▁dog"]] @ vectors[vocabulary["犬"]] < 0.6  # further than space.distance


def test_the_lm_is_a_choice_of_model_and_its_refusals_name_the_space(config: Callable[..., DictConfig]) -> None:
    node = config("+space=lm", "model@space.model=embedded_control", "space.checkpoint=512").space
    assert instantiate(node).fingerprint["model"] == "embedded_control"
    node.checkpoint = 7
    with pytest.raises(Refused, match="^space=lm: checkpoint=7: embedded_control has the steps"):
        instantiate(node).fingerprint  # noqa: B018


def test_the_tokenizer_of_an_lm_may_lie_apart_from_it(step512: Checkpoint, tmp_path: Path) -> None:
    weights, apart = tmp_path / "weights", tmp_path / "tokenizer"
    shutil.copytree(step512.folder, weights, ignore=shutil.ignore_patterns("token*"))
    shutil.copytree(step512.folder, apart, ignore=shutil.ignore_patterns("model*", "config.json"))
    tokenizer = AutoTokenizer.from_pretrained(step512.folder)
    found = LMSpace(Ladder(replace(step512, folder=weights, tokenizer_folder=apart)), 512, 0, "average", 0.4)
    expected = LMSpace(Ladder(step512), 512, 0, "average", 0.4).vectors(tokenizer)
    assert np.array_equal(found.vectors(tokenizer), expected)


def test_an_lm_whose_tokenizer_has_more_tokens_than_embeddings_is_refused(step512: Checkpoint, tmp_path: Path) -> None:
    apart = tmp_path / "tokenizer"
    tokenizer: Any = AutoTokenizer.from_pretrained(step512.folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(apart)
    checkpoint = replace(step512, tokenizer_folder=apart)
    with pytest.raises(Refused, match=r"^model=embedded: has 5120 embeddings, .* 5121 ids \(as \[PAD\]\)"):
        LMSpace(Ladder(checkpoint), 512, 0, "average", 0.4).vectors(checkpoint.load_tokenizer())
