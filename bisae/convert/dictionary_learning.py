"""dictionary_learning: `ae.pt`, a state dict, and `config.json` with the trainer's settings.

Inputs are not normalised: a norm of activations that was used in training is part of the saved weights.
"""

import re
from pathlib import Path

import torch

from bisae.cells.find import FoundCell
from bisae.convert.hook import submodule
from bisae.convert.source import (
    ANY,
    Foreign,
    Keys,
    any_value,
    assembled,
    check_keys,
    check_sizes,
    named,
    picked,
    refused,
    settings,
    tensors,
    unit_decoder,
    wanted,
    whole_k,
    with_threshold,
)
from bisae.runtime.atomic import write_json
from bisae.sae import JumpReLU, SparseAutoencoder, TopK
from bisae.sae.architectures.raw import RawJumpReLU, RawReLU, RawTopK

MODULES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T", "b_pre": "b_dec"}
TENSORS = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_pre": "b_dec"}
KINDS: dict[str, tuple[type[SparseAutoencoder], dict[str, str]]] = {
    "AutoEncoderTopK": (RawTopK, MODULES),
    "AutoEncoder": (RawReLU, {**MODULES, "b_pre": "bias"}),
    "BatchTopKSAE": (RawJumpReLU, MODULES),
    "MatryoshkaBatchTopKSAE": (RawJumpReLU, TENSORS),
    "JumpReluAutoEncoder": (RawJumpReLU, TENSORS),
}
BUFFERS: dict[str, tuple[str, ...]] = {
    "AutoEncoderTopK": ("k", "threshold"),
    "BatchTopKSAE": ("k", "threshold"),
    "MatryoshkaBatchTopKSAE": ("k", "threshold", "group_sizes"),
    "JumpReluAutoEncoder": ("threshold",),
}
WRITES: tuple[type[SparseAutoencoder], ...] = (RawTopK, RawReLU, RawJumpReLU)

TRAINER = any_value("""
dict_class trainer_class activation_dim dict_size k layer submodule_name lm_name wandb_name device seed lr steps
warmup_steps decay_start resample_steps l1_penalty sparsity_penalty sparsity_warmup_steps sparsity_function
initial_sparsity_penalty sparsity_queue_length n_sparsity_updates anneal_start anneal_end p_start p_end bandwidth
target_l0 auxk_alpha top_k_aux threshold_beta threshold_start_step k_anneal_steps group_fractions group_weights
group_sizes norm_factor
""")
IO = {"out": "{}", "in": "the input of {}"}  # the output or input of a module; an SAE with both is a transcoder
BUFFER: Keys = {
    "io": tuple(IO),
    **any_value("d_submodule n_ctxs ctx_len refresh_batch_size out_batch_size device"),
}


def read(source: Path, k: int | None) -> Foreign:
    """Read an SAE of one of KINDS. An AutoEncoder gets directions of norm 1, as in its own loader."""
    path = source / "config.json"
    config = settings(path)
    check_keys(config, {"trainer": ANY, "buffer": ANY}, path)
    trainer, buffer = config.get("trainer"), config.get("buffer") or {}
    if not isinstance(trainer, dict) or not isinstance(buffer, dict):
        raise refused(path, "has no `trainer`, or a `buffer` without keys")
    kind, names = wanted(trainer, "dict_class", KINDS, path)
    check_keys(trainer, TRAINER, path)
    check_keys(buffer, BUFFER, path)
    stored = tensors(source / "ae.pt")
    weights = picked(stored, names, source, BUFFERS.get(trainer["dict_class"], ()))
    check_sizes(trainer, {"activation_dim": weights.b_pre.numel(), "dict_size": weights.b_enc.numel()}, path)
    if trainer["dict_class"] == "JumpReluAutoEncoder":  # it does not subtract b_pre; SAEs here always do
        weights = weights._replace(b_enc=weights.b_enc + weights.W_enc @ weights.b_pre)
    sae: SparseAutoencoder
    if kind is RawTopK:
        trained = stored["k"].item() if "k" in stored and stored["k"].numel() == 1 else None
        sae = assembled(kind, weights, source, k=whole_k(k, path, trainer.get("k"), trained))
    elif kind is RawReLU:
        sae = assembled(kind, unit_decoder(weights), source, l1=0.0, encoder_bias=True)  # l1 matters only in training
    else:
        sae = with_threshold(RawJumpReLU, weights, named(stored, "threshold", source), source)
    layer, hook = trainer.get("layer"), trainer.get("submodule_name")
    if hook is None and layer is not None:
        hook = f"resid_post_layer_{layer}"
    if hook and layer is not None and (number := re.search(r"_layer_(\d+)$", hook)) and int(number[1]) != layer:
        raise refused(path, f"layer is {layer}, but submodule_name is {hook!r}")
    return Foreign(sae, hook and IO[buffer.get("io", "out")].format(hook))


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """Write an SAE of one of WRITES; reading it gives the same codes and reconstructions."""
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu() for tensor in sae.weights)
    stored = {"encoder.weight": W_enc, "encoder.bias": b_enc, "decoder.weight": W_dec.T.contiguous()}
    trainer = {
        "activation_dim": sae.d_model,
        "dict_size": sae.latents,
        "layer": max(0, cell.layer - 1),
        "lm_name": cell.model,
        "submodule_name": submodule(cell),
    }
    if isinstance(sae, TopK):
        stored |= {"b_dec": b_pre, "k": torch.tensor(sae.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
        trainer |= {"dict_class": "AutoEncoderTopK", "trainer_class": "TopKTrainer", "k": sae.k}
    elif isinstance(sae, JumpReLU):
        threshold = sae.threshold.detach().float().cpu().clamp_min(0)
        b_enc = b_enc - W_enc @ b_pre
        stored = {"W_enc": W_enc.T.contiguous(), "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_pre, "threshold": threshold}
        trainer |= {"dict_class": "JumpReluAutoEncoder", "trainer_class": "JumpReluTrainer"}
    else:
        stored["bias"] = b_pre
        trainer |= {"dict_class": "AutoEncoder", "trainer_class": "StandardTrainer"}
    torch.save(stored, folder / "ae.pt")
    write_json(folder / "config.json", {"trainer": trainer})
