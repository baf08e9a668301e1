"""What is refused when an LM's weights are loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from bisae.lm.causal_lm import load_causal_lm
from bisae.lm.loading import load
from bisae.lm.model import Checkpoint, HuggingFaceModel
from bisae.lm.probe import decoder_blocks
from bisae.lm.residual import ResidualReader
from bisae.runtime.errors import Refused

CPU = torch.device("cpu")
IDS = torch.arange(1, 25).reshape(3, 8)
SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
}  # fmt: skip
VISION: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip


def checkpoint_of(folder: Path) -> Checkpoint:
    return HuggingFaceModel("mine", str(folder), None, 1, None, 0, None, None, None, False).checkpoint(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)).save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 2}, r"holds 13 weights, such as model\.layers\.2\.\S+, that have no place"),
        ({"attention_bias": False}, r"holds 12 weights, such as model\.layers\.0\.\S+bias, that have no place"),
        ({"num_hidden_layers": 4}, "lacks 13 weights, such as layers.3."),
        (
            {"intermediate_size": 48},
            r"holds 9 weights of another shape: layers\.0\.\S+ is \[16, 32\] in ",
        ),
        (
            {"vocab_size": 40},
            r"holds [12] weights of another shape: \S+ is \[50, 16\] in ",
        ),
    ],
)
def test_weights_that_are_not_those_config_json_describes_are_refused(
    folder: Path, changes: dict[str, object], said: str
) -> None:
    change_config(folder, **changes)
    with pytest.raises(Refused, match=rf"^path=\S+: {said}"):
        load(AutoModel, checkpoint_of(folder), torch.float32)
    with pytest.raises(Refused, match=r"^path=\S+: (holds|lacks) \d+ weights"):
        load_causal_lm(checkpoint_of(folder), torch.float32, CPU)


def test_weights_that_change_no_stream_may_be_left_over(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    streams = ResidualReader(checkpoint_of(folder), [3], torch.float32, CPU).read(IDS)[3]
    more = {
        "score.weight": torch.ones(2, 16),  # a reward head
        "model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "model.mtp.layers.0.proj.weight": torch.ones(16, 32),
        "model.layers.3.eh_proj.weight": torch.ones(16, 32),  # DeepSeek's, numbered on
    }
    save_file(weights | more, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, num_nextn_predict_layers=1)
    assert torch.equal(ResidualReader(checkpoint_of(folder), [3], torch.float32, CPU).read(IDS)[3], streams)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_a_quantised_folder_is_refused_before_it_is_loaded(folder: Path, method: str) -> None:
    change_config(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(Refused, match=rf"^path=\S+: is quantised \({method}\)"):
        checkpoint_of(folder)


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_pickled_file_that_is_cut_off_is_refused(folder: Path, kept: int) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    whole = (folder / "pytorch_model.bin").read_bytes()
    assert load(AutoModel, checkpoint_of(folder), torch.float32)
    (folder / "pytorch_model.bin").write_bytes(whole[:kept])
    with pytest.raises(Refused, match=r"^path=\S+: cannot be loaded: "):
        load(AutoModel, checkpoint_of(folder), torch.float32)


def test_an_lm_with_an_encoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "both")
    with pytest.raises(Refused, match=r"^path=\S+: not a decoder-only LM: t5 has an encoder too"):
        checkpoint_of(tmp_path / "both")
    T5EncoderModel(config).save_pretrained(tmp_path / "encoder")
    with pytest.raises(Refused, match=r"^path=\S+: not a decoder-only LM"):
        load(AutoModel, checkpoint_of(tmp_path / "encoder"), torch.float32)


def test_the_text_decoder_of_an_lm_that_sees_is_read_and_never_its_eyes(tmp_path: Path) -> None:
    gemma = Gemma3Config(
        text_config={**SIZES, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2},
        vision_config=VISION, mm_tokens_per_image=4, image_token_index=49, boi_token_index=48, eoi_token_index=47,
    )  # fmt: skip
    llava = LlavaConfig(
        text_config=LlamaConfig(**SIZES), vision_config=CLIPVisionConfig(**VISION), image_token_index=49
    )
    for name, lm in (
        ("gemma", Gemma3ForConditionalGeneration(gemma)),
        ("llava", LlavaForConditionalGeneration(llava)),
    ):
        lm.eval().save_pretrained(tmp_path / name)
        checkpoint = checkpoint_of(tmp_path / name)
        assert (checkpoint.layers, checkpoint.d_model) == (3, 16)
        with torch.no_grad():
            states = lm.model.language_model(input_ids=IDS, output_hidden_states=True).hidden_states
        found = ResidualReader(checkpoint, [0, 2], torch.float32, CPU).read(IDS)
        assert all(torch.allclose(found[layer], states[layer], atol=1e-6) for layer in (0, 2))
        asked = load_causal_lm(checkpoint, torch.float32, CPU)
        assert decoder_blocks(asked)[0] is asked.model.language_model.layers[0]
        with torch.no_grad():
            torch.testing.assert_close(asked(input_ids=IDS).logits, lm(input_ids=IDS).logits)
