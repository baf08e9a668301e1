"""A tiny LM at random weights of any family that transformers knows, from its config class alone."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY, WIDTH, HEADS, LAYERS, MOST = 64, 32, 4, 3, 2_000_000
# Tried in order: the first that builds an LM which reads a text is taken. Names as the families' configs have them.
SIZES: dict[str, Any] = {
    r"vocab_size|n_vocab|vocab_size_per_layer_input|true_vocab_size|vocab_size_override": VOCABULARY,
    r"hidden_size|n_embd|d_model|dim|embedding_size|emb_dim|word_embed_proj_dim|hidden_dim|d_embed": WIDTH,
    r"num_(hidden_)?layers|n_layers?|num_decoder_layers|decoder_layers|encoder_layers": LAYERS,
    r"(num_|n_)(attention_|decoder_attention_|encoder_attention_)?heads?|(en|de)coder_attention_heads": HEADS,
    r"num_(global_)?key_value_heads|num_kv_heads|n_head_kv|n_kv_heads|multi_query_group_num": 2,
    r"\w*intermediate_size|ffn_dim|n_inner|(en|de)coder_ffn_dim|ffn_hidden_size|d_ff|dim_ff|d_inner|ffn_size": 2 * WIDTH,
    r"(global_)?head_dim|d_kv|attention_head_dim|kv_channels|v_head_dim|qk_nope_head_dim": WIDTH // HEADS,
    r"qk_rope_head_dim|rotary_dim": 4,
    r"q_lora_rank|kv_lora_rank": 16,
    r"n_routed_experts|num_(local_)?experts|moe_num_experts|num_routed_experts": 4,
    r"num_experts_per_tok|moe_topk|moe_k|num_experts_per_token|top_k_experts|moe_top_k": 2,
    r"n_group|topk_group|num_expert_group": 1,
    r"hidden_size_per_layer_input": 8,
    r"mamba_n_heads|mamba_num_heads|n_mamba_heads": 4,
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
        if key in SPECIAL and value is not None:
            found[key] = SPECIAL[key]
        for names, size in SIZES.items():
            if re.fullmatch(names, key) and (isinstance(value, int) and not isinstance(value, bool) or value is None):
                found[key] = size if value is not None or key in ("vocab_size",) else None
    kinds = config.to_dict().get("layer_types")
    if kinds:  # one of each kind, as far as there is room
        found["layer_types"] = (list(dict.fromkeys(kinds)) * LAYERS)[:LAYERS]
    return {key: value for key, value in found.items() if value is not None}


def candidates(family: str) -> Iterator[PreTrainedConfig]:
    plain = AutoConfig.for_model(family)
    text = plain.get_text_config(decoder=True)
    sizes = shrunk(text)
    for changes in (sizes, {k: v for k, v in sizes.items() if k != "layer_types"}):
        if text is plain:
            yield AutoConfig.for_model(family, **changes)


def tiny_lm(family: str) -> PreTrainedModel:
    """In float32 and evaluation mode, its weights drawn with seed 0."""
    problems = []
    for config in candidates(family):
        try:
            with torch.device("meta"):  # a size that nobody shrank would fill the memory
                size = AutoModelForCausalLM.from_config(config).num_parameters()
            if size > MOST:
                raise ValueError(f"{size} parameters")
            torch.manual_seed(0)
            lm = AutoModelForCausalLM.from_config(config).float().eval()
            with torch.no_grad():
                lm(input_ids=torch.arange(3, 11)[None], use_cache=False)
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}"[:200])
        else:
            return lm
    raise ValueError("; ".join(problems) or "a config of several parts")
