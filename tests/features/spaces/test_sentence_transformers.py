import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from transformers import AutoTokenizer, BertConfig, BertModel

from bisae.config.instantiate import instantiate
from bisae.features.spaces.sentence_transformers import SentenceTransformersSpace
from bisae.features.spaces.shipped import VECTORS
from bisae.features.spaces.text_space import token_texts
from bisae.features.spaces.use import UseSpace
from bisae.runtime.errors import Refused

Config = Callable[..., DictConfig]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny random sentence-transformers model, saved as any other."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tokenizer = AutoTokenizer.from_pretrained(VECTORS.parent)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **shape)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    sentence_transformers.SentenceTransformer(str(tmp_path / "bert"), device="cpu").save(str(tmp_path / "model"))
    return tmp_path / "model"


def test_a_local_model_gives_a_vector_for_each_token(config: Config, model: Path) -> None:
    space = instantiate(config("+space=sentence_transformers", f"space.model={model}").space)
    tokenizer = AutoTokenizer.from_pretrained(VECTORS.parent)
    vectors = space.clustering(tokenizer, "").vectors
    assert vectors.shape == (len(tokenizer), 17) and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    vocabulary, texts = tokenizer.get_vocab(), token_texts(tokenizer)
    assert np.array_equal(vectors[vocabulary["▁a"]], vectors[vocabulary["a"]])  # the same text
    assert len(np.unique(vectors, axis=0)) > 0.9 * len(set(texts))
    before = space.fingerprint
    assert str(model.parent) not in str(before)
    weights = next(model.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert space.fingerprint != before


class Recorder:
    """Stands for sentence_transformers where it is not installed."""

    def __init__(self, folder: str) -> None:
        raise OSError("no modules")


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bisae.features.spaces.sentence_transformers.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Recorder))
    space = SentenceTransformersSpace(str(tmp_path), None, "average", 0.4)
    with pytest.raises(Refused, match="^model=.*cannot be loaded: no modules"):
        space.embed(["a"])


def test_a_model_that_is_nowhere_is_refused_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bisae.features.spaces.sentence_transformers.find_spec", lambda name: object())
    for model in ("nobody/nothing", "not a name"):
        with pytest.raises(Refused, match=f"^space=sentence_transformers: model={model}: neither a local folder nor"):
            SentenceTransformersSpace(model, None, "average", 0.4).fingerprint  # noqa: B018


def test_without_the_package_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sentence_transformers", "use"):
        monkeypatch.setattr(f"bisae.features.spaces.{module}.find_spec", lambda name: None)
    with pytest.raises(Refused, match="^space=sentence_transformers: is not installed: pip install sentence-transf"):
        SentenceTransformersSpace("a/b", None, "average", 0.4)
    with pytest.raises(Refused, match=r"^space=use: is not installed: pip install .*'.\[clusters\]'"):
        UseSpace("average", 0.4)
