"""A tiny LM at random weights of any family that transformers knows, from its config class alone."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, WIDTH, HEADS, LAYERS, MOST = 64, 32, 4, 3, 2_000_000
# What the families' configs call their sizes.
SIZES: dict[str, int] = {
    r"n_?vocab(_size)?|vocab_size\w*|true_vocab_size": VOCABULARY,
    r"hidden_size|n_embd|d_model|dim|embedding_size|emb_dim|word_embed_proj_dim|hidden_dim|d_embed": WIDTH,
    r"(num|n)_(hidden_|decoder_)?layers?|(de|en)coder_layers": LAYERS,
    r"((num|n)_)?(attention_|(de|en)coder_attention_)?heads?|(en|de)coder_attention_heads": HEADS,
    r"num_(global_)?key_value_heads|num_kv_heads|n_head_kv|n_kv_heads": 2,
    r"\w*intermediate_size|((en|de)coder_)?ffn_dim|n_inner|ffn_hidden_size|\w*d_ff|dim_ff|d_inner|ffn_size": 2 * WIDTH,
    r"(global_)?head_dim|d_kv|attention_head_dim|kv_channels|v_head_dim|qk_nope_head_dim": WIDTH // HEADS,
    r"qk_rope_head_dim|rotary_dim": 4,
    r"q_lora_rank|kv_lora_rank": 16,
    r"n_routed_experts|num_(local_)?experts|moe_num_experts|num_routed_experts": 4,
    r"num_experts_per_tok|moe_(top)?k|num_experts_per_token|top_k_experts|moe_top_k|moe_topk": 2,
    r"n_group|topk_group|num_expert_group": 1,
    r"hidden_size_per_layer_input|laurel_rank": 8,
    r"(mamba_)?n(um)?_(mamba_)?heads|n_mamba_heads|num_heads": HEADS,
    r"mamba_d_head|mamba_head_dim": 16,
    r"mamba_d_state|ssm_state_size|state_size": 8,
    r"mamba_dt_rank|time_step_rank": 4,
    r"mamba_n_groups|n_groups|mamba_ngroups": 1,
    r"linear_num_(key|value)_heads": 4,
    r"linear_(key|value)_head_dim": 8,
    r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length": 64,
    r"num_kv_shared_layers": 0,
}
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def families() -> list[str]:
    """Model types that transformers has a causal LM of."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    """The keys of a config that say how large the LM is, at tiny values."""
    found: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        if isinstance(value, int) and not isinstance(value, bool):
            known = [size for names, size in SIZES.items() if re.fullmatch(names, key)]
            known += [SPECIAL[key]] if key in SPECIAL else []
            if known:
                found[key] = known[-1]
        if key == "layer_types" and value:  # one of each kind, as far as there is room
            found[key] = (list(dict.fromkeys(value)) * LAYERS)[:LAYERS]
    return found


def candidates(family: str) -> Iterator[PreTrainedConfig]:
    """Configs of a family, the likeliest first: some compute a size from others, so that not all can be given."""
    plain = AutoConfig.for_model(family)
    if plain.get_text_config(decoder=True) is not plain:
        raise ValueError("a config of several parts")
    for changes in variants(shrunk(plain)):
        try:
            yield AutoConfig.for_model(family, **changes)
        except Exception as problem:
            yield problem  # type: ignore[misc]


def variants(sizes: dict[str, Any]) -> Iterator[dict[str, Any]]:
    heads = {key: HEADS for key in sizes if "key_value" in key or "kv_heads" in key}
    computed = {key for key in sizes if "head_dim" in key and "rope" not in key}
    given = {"head_dim": WIDTH // HEADS, "is_decoder": True}
    for left_out, more in (
        (set(), {}),
        (set(), given),
        (set(), heads),
        (computed, {}),
        (computed, heads),
        (computed, heads | given),
        (computed | {"layer_types"}, heads | given),
    ):
        yield {key: size for key, size in sizes.items() if key not in left_out} | more


def tiny_lm(family: str) -> PreTrainedModel:
    """In float32 and evaluation mode, its weights drawn with seed 0; ValueError where none could be built."""
    problems: list[str] = []
    for config in candidates(family):
        try:
            if isinstance(config, Exception):
                raise config
            with torch.device("meta"):  # a size that nobody shrank would fill the memory
                size = AutoModelForCausalLM.from_config(config).num_parameters()
            if size > MOST:
                problems.append(f"{size} parameters")
                break
            torch.manual_seed(0)
            lm: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
            with torch.no_grad():
                lm(input_ids=torch.arange(3, 11)[None], use_cache=False)
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}"[:200])
        else:
            return lm
    raise ValueError(problems[0])
