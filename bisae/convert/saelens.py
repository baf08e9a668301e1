"""SAELens: `cfg.json` and `sae_weights.safetensors`, matrices input-major.

SAELens' `constant_norm_rescale` gives every input the norm sqrt(d_model); here the norm is 1. With biases sqrt(d_model)
times as large, its codes are sqrt(d_model) times ours, and it reconstructs the LM's activations in their own norm.
SAELens saves BatchTopK and Matryoshka SAEs as JumpReLU, and so does this file. It reads versions 1 to 6 and writes 6.
"""

import math
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from bisae.cells.find import FoundCell
from bisae.convert.hook import transformer_lens
from bisae.convert.saelens_keys import checked, nested
from bisae.convert.source import (
    ANY,
    Foreign,
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
from bisae.sae import BatchTopK, JumpReLU, Matryoshka, ReLUL1, SparseAutoencoder, TopK, Weights
from bisae.sae.architectures.raw import RawInputs, RawJumpReLU, RawReLU, RawTopK

NAMES = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_pre": "b_dec"}
# Whether inputs get norm 1. Other scales are not in the file, or centre the inputs.
UNIT = {"constant_norm_rescale": True, "none": False, False: False, None: False}
# How the SAE encodes, by architecture and activation_fn: before version 6 a TopK SAE may be "standard".
ENCODES: dict[str, dict[str, str]] = {
    "standard": {"relu": "standard", "topk": "topk"},
    "topk": {"topk": "topk"},
    "jumprelu": {"relu": "jumprelu"},
}
SCALES = ("scaling_factor", "finetuning_scaling_factor")  # a factor for each latent in the reconstruction
KINDS: dict[tuple[str, bool], type[SparseAutoencoder]] = {
    ("topk", True): TopK,
    ("topk", False): RawTopK,
    ("standard", True): ReLUL1,
    ("standard", False): RawReLU,
}
JUMPS: dict[bool, type[JumpReLU]] = {True: JumpReLU, False: RawJumpReLU}
WRITES: tuple[type[SparseAutoencoder], ...] = (*KINDS.values(), *JUMPS.values(), BatchTopK, Matryoshka)


def read(source: Path, k: int | None) -> Foreign:
    """Read a TopK, JumpReLU or standard SAE. Others are refused, and so are inputs centred or scaled by data."""
    path = source / "cfg.json"
    cfg = {"architecture": "standard", "normalize_activations": "none", **settings(path)}
    functions = wanted(cfg, "architecture", ENCODES, path)
    cfg = checked(cfg, path)
    encodes = wanted({"activation_fn": next(iter(functions)), **cfg}, "activation_fn", functions, path)
    unit, topk = wanted(cfg, "normalize_activations", UNIT, path), encodes == "topk"
    arguments = nested(cfg, "activation_fn_kwargs", path)
    check_keys(arguments, {"k": ANY} if topk else {}, path)
    for key in ("k", "rescale_acts_by_decoder_norm"):
        if cfg.get(key) and not topk:
            raise refused(path, f"{key} is {cfg[key]!r}, which belongs to topk; this SAE is {encodes}")
    stored = tensors(source / "sae_weights.safetensors")
    weights = picked(stored, NAMES, source, (*SCALES, *(["threshold"] if encodes == "jumprelu" else [])))
    check_sizes(cfg, {"d_in": weights.b_pre.numel(), "d_sae": weights.b_enc.numel()}, path)
    if not cfg.get("apply_b_dec_to_input", True):  # ours always is
        weights = weights._replace(b_enc=weights.b_enc + weights.W_enc @ weights.b_pre)
    if cfg.get("rescale_acts_by_decoder_norm", False):
        weights = unit_decoder(weights)
    for name in sorted(stored.keys() & set(SCALES)):
        weights = finetuned(weights, named(stored, name, source), bool(cfg.get("finetuning_scaling_factor")), source)
    scale = math.sqrt(weights.b_pre.numel()) if unit else 1.0
    weights = weights._replace(b_enc=weights.b_enc / scale, b_pre=weights.b_pre / scale)
    hook = cfg["hook_name"]
    if encodes == "jumprelu":
        return Foreign(with_threshold(JUMPS[unit], weights, named(stored, "threshold", source) / scale, source), hook)
    kept = {"k": whole_k(k, path, cfg.get("k"), arguments.get("k"))} if topk else {"l1": 0.0, "encoder_bias": True}
    return Foreign(assembled(KINDS[encodes, unit], weights, source, **kept), hook)


def finetuned(weights: Weights, factor: Tensor, used: bool, source: Path) -> Weights:
    """Multiply each decoder direction by its latent's `factor`. If not `used`, factors other than 1 are refused, as by
    SAELens."""
    if factor.shape != weights.b_enc.shape or not (used or (factor == 1).all()):
        raise refused(
            source,
            "its scaling_factor is not 1, and finetuning_scaling_factor is false; or it is not [latent]",
        )
    return weights._replace(W_dec=weights.W_dec * factor.float()[:, None])


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """Write an SAE of one of WRITES; reading it gives the same codes and reconstructions."""
    unit = not isinstance(sae, RawInputs)
    scale = math.sqrt(sae.d_model) if unit else 1.0
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu() for tensor in sae.weights)
    stored: dict[str, Tensor] = {"W_enc": W_enc.T, "b_enc": b_enc * scale, "W_dec": W_dec, "b_dec": b_pre * scale}
    architecture = "topk" if isinstance(sae, TopK) else "standard"
    if isinstance(sae, BatchTopK | JumpReLU):
        architecture = "jumprelu"
        stored["threshold"] = sae.threshold.detach().float().cpu().clamp_min(0).expand(sae.latents) * scale
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "sae_weights.safetensors")
    cfg = {
        "architecture": architecture,
        "d_in": sae.d_model,
        "d_sae": sae.latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "constant_norm_rescale" if unit else "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",  # without a version SAELens drops the metadata
            "model_name": cell.model,
            "hook_name": transformer_lens(cell),
            "hook_head_index": None,
            "prepend_bos": True,
            "context_size": cell.identity["activations"]["context"],
            "bisae": {"step": cell.step, "layer": cell.layer, "hash": cell.hash, "metrics": dict(cell.metrics)},
        },
    }
    if isinstance(sae, TopK):
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    write_json(folder / "cfg.json", cfg)
