"""The keys of a SAELens `cfg.json`, of versions 1 to 6.

Before version 6 all keys are at the top level; from version 3 on, without most keys that matter only in training.
Version 6 keeps keys that do not change what the SAE computes in `metadata`, which may hold anything.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisae.convert.source import ANY, DTYPES, Keys, any_value, check_keys, refused

RENAMED = {  # names before version 6, and the names used here
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
    "meta": "metadata",
}
BOTH = (True, False)
ARITHMETIC: Keys = {
    "architecture": ANY,
    "activation_fn": ANY,
    "activation_fn_kwargs": ANY,
    "k": ANY,
    "d_in": ANY,
    "d_sae": ANY,
    "dtype": DTYPES,
    "apply_b_dec_to_input": BOTH,
    "normalize_activations": ANY,
    "reshape_activations": ("none",),
    "rescale_acts_by_decoder_norm": BOTH,
    "finetuning_scaling_factor": (*BOTH, None),
}
# Where the SAE reads. The LM's kwargs are TransformerLens'; with centred weights the residual stream is different.
READS: Keys = {
    "hook_name": ANY,
    "hook_layer": ANY,
    "hook_head_index": (None,),
    "model_kwargs": ({}, None),
    "model_from_pretrained_kwargs": ANY,
}
MODEL_KWARGS: Keys = {
    "center_writing_weights": (False, None),
    **any_value(
        """fold_ln fold_value_biases center_unembed refactor_factored_attn_matrices checkpoint_index checkpoint_value
        revision n_devices device dtype torch_dtype trust_remote_code token"""
    ),
}
TRAINING = any_value("""
device metadata model_name model_class_name sae_lens_version sae_lens_training_version neuronpedia_id
prepend_bos context_size seqpos_slice exclude_special_tokens dataset_path dataset_trust_remote_code streaming
is_dataset_tokenized hook_eval hook_point_eval use_cached_activations cached_activations_path from_pretrained_path
b_dec_init_method expansion_factor normalize_sae_decoder noise_scale decoder_orthogonal_init decoder_heuristic_init
decoder_heuristic_init_norm decoder_init_norm init_encoder_as_decoder_transpose n_batches_in_buffer training_tokens
total_training_tokens finetuning_tokens finetuning_method store_batch_size store_batch_size_prompts train_batch_size
train_batch_size_tokens tokens_per_buffer act_store_device seed autocast autocast_lm compile_llm llm_compilation_mode
compile_sae sae_compilation_mode adam_beta1 adam_beta2 mse_loss_normalization l1_coefficient lp_norm
scale_sparsity_penalty_by_decoder_norm l1_warm_up_steps l0_coefficient l0_warm_up_steps lr lr_scheduler_name
lr_warm_up_steps lr_end lr_decay_steps n_restart_cycles use_ghost_grads feature_sampling_window
feature_sampling_method feature_reinit_scale resample_batches dead_feature_window dead_feature_threshold
dead_feature_estimation_method jumprelu_init_threshold jumprelu_bandwidth jumprelu_sparsity_loss_mode
jumprelu_tanh_scale pre_act_loss_coefficient use_sparse_activations aux_loss_coefficient topk_threshold_lr
matryoshka_widths use_matryoshka_aux_loss n_eval_batches eval_batch_size_prompts log_to_wandb
log_activations_store_to_wandb log_optimizer_state_to_wandb wandb_project wandb_id run_name wandb_entity
wandb_log_frequency eval_every_n_wandb_logs resume n_checkpoints checkpoint_path verbose
""")
KEYS: Keys = {**ARITHMETIC, **READS, **TRAINING}
METADATA: Keys = {**READS, "hook_name_out": (None,), "hook_layer_out": (None,), "d_out": (None,)}  # of transcoders


def checked(cfg: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Flatten and check a `cfg.json`.

    Returns:
        The keys under their names in version 6, all at the top level; `hook_name` is None if the file has none.

    Raises:
        Refused: a key or value that cannot be read.
    """
    flat: dict[str, Any] = {}
    for key, value in cfg.items():
        if flat.setdefault(RENAMED.get(key, key), value) != value:
            raise refused(path, f"{key} is {value!r}, but {RENAMED.get(key, key)} is {flat[RENAMED.get(key, key)]!r}")
    check_keys(flat, KEYS, path)
    metadata = nested(flat, "metadata", path)
    reads = {key: value for key, value in metadata.items() if key in METADATA}
    check_keys(reads, METADATA, path)
    flat = {"hook_name": None, **flat, **reads}
    check_keys(nested(flat, "model_from_pretrained_kwargs", path), MODEL_KWARGS, path)
    if flat["hook_name"] is not None:
        flat["hook_name"] = str(flat["hook_name"]).replace("{layer}", str(flat.get("hook_layer")))
        if flat["hook_name"].endswith(
            "_z"
        ):  # before version 6 nothing else says that the activations are split into heads
            check_keys({"reshape_activations": "hook_z"}, KEYS, path)
    return flat


def nested(settings: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """The object at a key; an empty one if the key is null or missing."""
    value = settings.get(key) or {}
    if not isinstance(value, dict):
        raise refused(path, f"{key} is {value!r:.80}, which has no keys")
    return value
