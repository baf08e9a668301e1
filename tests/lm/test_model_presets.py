import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bisae.config.instantiate import instantiate
from bisae.runtime.errors import Refused
from bisae.sae import TopK
from tests.conftest import ROOT

Config = Callable[..., DictConfig]

LLM_JP_3 = {  # layers, d_model and non-embedding parameters on the model cards
    "150m": (12, 512, 50_344_448),
    "440m": (16, 1024, 243_303_424),
    "980m": (20, 1536, 684_258_816),
    "1.8b": (24, 2048, 1_459_718_144),
    "3.7b": (28, 3072, 3_171_068_928),
}


def llama(folder: Path, layers: int, d_model: int) -> None:
    """A folder as far as it is looked at before the weights are loaded; these are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"num_hidden_layers": layers, "hidden_size": d_model, "max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **shape}))
    (folder / "pytorch_model.bin").touch()


@pytest.mark.parametrize("size", LLM_JP_3)
def test_llm_jp_3_takes_steps_from_local_folders_and_the_final_weights_from_the_hub(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = instantiate(config(f"model=llm_jp_3_{size}").model)
    assert (model.name, model.layers, model.d_model) == (f"llm_jp_3_{size}", *LLM_JP_3[size][:2])
    llama(tmp_path / f"llm-jp-3-{size}" / "iter_0001000", model.layers, model.d_model)
    found = model.checkpoint(1000)
    assert (found.layers, found.d_model, found.positions) == (model.layers, model.d_model, 2048)
    assert found.tokens_seen == 1000 * model.tokens_per_step
    assert model.final_step * model.tokens_per_step == 2_072_489_492_480  # 2.1 T, of 2,072,488,058,295 in the corpus
    with pytest.raises(Refused, match=f"^checkpoint=2000: no folder ./llm-jp-3-{size}/iter_0002000; give the path"):
        model.checkpoint(2000)
    with pytest.raises(Refused, match=f"^path=llm-jp/llm-jp-3-{size}: neither"):
        model.checkpoint("final")


def test_croissantllm_is_one_hub_repository_a_step_named_in_thousands(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetched(repository: str, revision: str | None, trust_remote_code: bool) -> Path:
        asked.append(repository)
        return tmp_path / "snapshot"

    llama(tmp_path / "snapshot", 24, 2048)
    monkeypatch.setattr("bisae.lm.model.fetch", fetched)
    model = instantiate(config("model=croissantllm").model)
    assert model.checkpoint(185000).tokens_seen == 185000 * 7680 * 2048
    assert model.checkpoint("final").step == 190000
    assert asked == ["croissantllm/base_185k", "croissantllm/CroissantLLMBase"]
    with pytest.raises(Refused, match="^checkpoint=5500: must be a multiple of step_unit=1000"):
        model.checkpoint(5500)


def test_the_documented_sizes_are_those_of_the_model_cards() -> None:
    sizes = runpy.run_path(str(ROOT / "docs" / "model_sizes.py"))
    for size, card in LLM_JP_3.items():
        found = sizes["model_size"](f"llm_jp_3_{size}", *sizes["HEADS_AND_FFN"][size])
        assert (found.layers, found.d_model, found.non_embedding) == card
    sae = TopK(d_model=512, latents=32768, k=32)
    assert sizes["model_size"]("llm_jp_3_150m", 8, 2048).sae == sum(p.numel() for p in sae.parameters())
