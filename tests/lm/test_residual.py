import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    ElectraConfig,
    ElectraForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    XLMConfig,
    XLMWithLMHeadModel,
)

from bisae.lm import residual
from bisae.lm.model import Checkpoint
from bisae.lm.probe import stream_of
from bisae.lm.residual import ResidualReader
from bisae.runtime.errors import Refused

IDS = torch.arange(1, 25).reshape(3, 8)
FAMILIES: dict[str, PreTrainedModel] = {
    "llama": LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    ),
    "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=3, n_head=2)),
    "neox": GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            bos_token_id=0, eos_token_id=0,
        )
    ),
    "olmo2": Olmo2ForCausalLM(
        Olmo2Config(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
            pad_token_id=1, bos_token_id=None, eos_token_id=0,
        )
    ),
    "bloom": BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=3, n_head=2)),
}  # fmt: skip


def saved(family: str, folder: Path) -> Checkpoint:
    FAMILIES[family].save_pretrained(folder)
    return Checkpoint(family, 0, folder, "w", "t", None, layers=3, d_model=16)


def reader(checkpoint: Checkpoint, *layers: int) -> ResidualReader:
    return ResidualReader(checkpoint, layers, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_the_outputs_of_the_decoder_blocks_and_0_the_embeddings(family: str, tmp_path: Path) -> None:
    checkpoint = saved(family, tmp_path)
    whole = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        states = whole(input_ids=IDS, output_hidden_states=True).hidden_states
    found = reader(checkpoint, 0, 1, 2, 3).read(IDS)
    for layer in (0, 1, 2):
        assert torch.equal(found[layer], states[layer])
    assert not torch.allclose(found[3], states[3])  # transformers gives the last one after the final norm


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_cut_at_the_deepest_layer_gives_the_same_bits(family: str, tmp_path: Path) -> None:
    checkpoint = saved(family, tmp_path)
    assert torch.equal(reader(checkpoint, 2).read(IDS)[2], reader(checkpoint, 2, 3).read(IDS)[2])


@pytest.mark.parametrize(("family", "parts"), [("llama", ("self_attn", "mlp")), ("gpt2", ("attn", "mlp"))])
def test_the_parts_of_a_block_are_what_it_adds_to_the_stream(
    family: str, parts: tuple[str, str], tmp_path: Path
) -> None:
    checkpoint = saved(family, tmp_path)
    stream = reader(checkpoint, 1, 2).read(IDS)
    added = [reader(replace(checkpoint, hook=part), 2).read(IDS)[2] for part in parts]
    torch.testing.assert_close(stream[1] + added[0] + added[1], stream[2])


def test_a_part_that_is_not_there_or_not_as_wide_or_of_no_block_is_refused_by_key(tmp_path: Path) -> None:
    checkpoint = saved("llama", tmp_path)
    with pytest.raises(Refused, match=r"^hook=attention: is no part of a LlamaDecoderLayer; it has self_a"):
        reader(replace(checkpoint, hook="attention"), 2)
    with pytest.raises(Refused, match=r"^hook=\S+: gives vectors of 32"):
        reader(replace(checkpoint, hook="mlp.up_proj"), 2)
    with pytest.raises(Refused, match=r"^layer=0: is no decoder block"):
        reader(replace(checkpoint, hook="mlp"), 0, 1)


def test_padding_behind_the_text_changes_nothing_but_the_last_bits(step512: Checkpoint) -> None:
    lm = reader(step512, 3)
    padded = torch.cat([IDS[:1], torch.zeros(1, 40, dtype=torch.long)], 1)
    assert torch.allclose(lm.read(padded)[3][:, :8], lm.read(IDS[:1])[3], atol=1e-5)


def test_the_stream_of_a_tuple_is_its_first_member() -> None:
    stream = torch.zeros(2, 3, 4)
    assert stream_of(stream) is stream and stream_of((stream, None)) is stream


def test_weights_that_are_missing_are_refused_rather_than_drawn_at_random(step512: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "lm"
    shutil.copytree(step512.folder, folder)
    weights = load_file(folder / "model.safetensors")
    (gone,) = (name for name in weights if name.endswith("layers.2.mlp.up_proj.weight"))
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r"^path=.*lacks 1 weights, such as layers.2.mlp.up_proj.weight"):
        ResidualReader(replace(step512, folder=folder), [1], torch.float32, torch.device("cpu"))


def test_an_encoder_is_refused_by_what_it_does_in_every_precision(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    encoders = {
        "bert": BertForMaskedLM(BertConfig(**sizes, num_hidden_layers=2)),
        "electra": ElectraForMaskedLM(ElectraConfig(**sizes, num_hidden_layers=2, embedding_size=16)),
        "gemma": Gemma3ForCausalLM(
            Gemma3TextConfig(
                **sizes, num_hidden_layers=2, num_key_value_heads=2, head_dim=8, use_bidirectional_attention=True
            )
        ),
    }
    for name, lm in encoders.items():
        lm.save_pretrained(tmp_path / name)
        checkpoint = Checkpoint(name, 0, tmp_path / name, "w", "t", None, layers=2, d_model=16)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with pytest.raises(Refused, match=r"^path=.*: not a decoder-only LM: a later token changes"):
                ResidualReader(checkpoint, [0], dtype, torch.device("cpu"))


def test_bert_made_a_decoder_is_read(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, is_decoder=True
    )
    BertLMHeadModel(config).save_pretrained(tmp_path)  # without the pooler that a BertModel has
    checkpoint = Checkpoint("bert", 0, tmp_path, "w", "t", None, layers=3, d_model=16)
    assert reader(checkpoint, 2).read(IDS)[2].shape == (3, 8, 16)


class LooksUp(LlamaModel):
    """Its first layers depend on its last, and on how many there are."""

    def forward(self, input_ids: torch.Tensor, **options: object) -> object:
        scale = self.layers[-1].input_layernorm.weight.mean() * len(self.layers)  # type: ignore[union-attr, operator]
        return super().forward(inputs_embeds=self.embed_tokens(input_ids) * scale, **options)


def test_an_lm_whose_lower_layers_follow_from_upper_ones_is_run_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = saved("llama", tmp_path)
    assert len(decoder_blocks_left(reader(checkpoint, 1))) == 1
    monkeypatch.setattr(residual, "AutoModel", LooksUp)
    found = reader(checkpoint, 1)
    assert len(decoder_blocks_left(found)) == 3
    whole = LooksUp.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.equal(found.read(IDS)[1], whole(IDS, output_hidden_states=True).hidden_states[1])


def decoder_blocks_left(found: ResidualReader) -> torch.nn.ModuleList:
    return found.model.layers  # type: ignore[return-value]


@pytest.mark.parametrize("layers", [(1,), (1, 3)])
def test_gemma_4_with_inputs_to_each_layer_is_read(layers: tuple[int, ...], tmp_path: Path) -> None:
    config = Gemma4TextConfig(  # type: ignore[call-arg]
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, global_head_dim=8, vocab_size_per_layer_input=50,
        hidden_size_per_layer_input=4, num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    )  # fmt: skip
    lm = Gemma4ForCausalLM(config).eval()
    lm.save_pretrained(tmp_path)
    with torch.no_grad():
        states = lm(input_ids=IDS, output_hidden_states=True).hidden_states
    found = reader(Checkpoint("gemma", 0, tmp_path, "w", "t", None, layers=3, d_model=16), *layers).read(IDS)
    torch.testing.assert_close(found[1], states[1])


def test_blocks_that_are_none_are_refused(tmp_path: Path) -> None:
    XLMWithLMHeadModel(XLMConfig(vocab_size=50, emb_dim=16, n_layers=2, n_heads=2, causal=True)).save_pretrained(
        tmp_path
    )
    checkpoint = Checkpoint("xlm", 0, tmp_path, "w", "t", None, layers=2, d_model=16)
    with pytest.raises(Refused, match="not a decoder-only LM that can be read: MultiHeadAttention 2 does not read"):
        reader(checkpoint, 1)


@pytest.mark.parametrize("family", ["opt", "mixtral"])
def test_a_part_that_puts_out_one_row_after_the_other_is_shaped_back(family: str, tmp_path: Path) -> None:
    lm, part = {
        "opt": (OPTForCausalLM(OPTConfig(vocab_size=50, hidden_size=16, word_embed_proj_dim=16, ffn_dim=32,
            num_hidden_layers=2, num_attention_heads=2)), "fc2"),
        "mixtral": (MixtralForCausalLM(MixtralConfig(vocab_size=50, hidden_size=16, intermediate_size=32,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, num_local_experts=4)), "mlp.experts"),
    }[family]  # fmt: skip
    lm.save_pretrained(tmp_path)
    checkpoint = Checkpoint(family, 0, tmp_path, "w", "t", None, layers=2, d_model=16, hook=part)
    together = reader(checkpoint, 2).read(IDS)[2]
    for row, ids in enumerate(IDS):
        torch.testing.assert_close(together[row], reader(checkpoint, 2).read(ids[None])[2][0])
    with pytest.raises(Refused, match=r"^hook=\S+: gives vectors of"):
        reader(replace(checkpoint, hook="fc1" if family == "opt" else "mlp.gate"), 2)
