"""SAELens 6: `cfg.json` and `sae_weights.safetensors`, matrices input-major.

Its `constant_norm_rescale` gives every input the norm sqrt(d_model), ours is 1: with biases sqrt(d_model) times as
large its codes are as many times ours, and its reconstructions are of the LM's activations as they are. What it has
trained as BatchTopK, Matryoshka or not, it saves as JumpReLU, as does this.
"""

import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from bisae.atomic import write_json
from bisae.cells import FoundCell
from bisae.convert.hook import transformer_lens
from bisae.convert.source import (
    Foreign,
    assembled,
    named,
    picked,
    settings,
    tensors,
    unit_decoder,
    wanted,
    whole_k,
    with_threshold,
)
from bisae.sae import BatchTopK, JumpReLU, Matryoshka, ReLUL1, SparseAutoencoder, TopK
from bisae.sae.raw import RawInputs, RawJumpReLU, RawReLU, RawTopK

NAMES = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_pre": "b_dec"}
UNIT = {"constant_norm_rescale": True, "none": False}  # other scales of inputs are not in the file, or centre inputs
KINDS: dict[tuple[str, bool], type[SparseAutoencoder]] = {
    ("topk", True): TopK,
    ("topk", False): RawTopK,
    ("standard", True): ReLUL1,
    ("standard", False): RawReLU,
}
JUMPS: dict[bool, type[JumpReLU]] = {True: JumpReLU, False: RawJumpReLU}
WRITES: tuple[type[SparseAutoencoder], ...] = (*KINDS.values(), *JUMPS.values(), BatchTopK, Matryoshka)


def read(source: Path, k: int | None) -> Foreign:
    """A TopK, JumpReLU or standard SAE; ConfigError for others, and for inputs that are centred or scaled by data."""
    path = source / "cfg.json"
    cfg = settings(path)
    architecture = wanted(cfg, "architecture", {name: name for name in ("topk", "jumprelu", "standard")}, path)
    unit = wanted(cfg, "normalize_activations", UNIT, path)
    wanted({"reshape_activations": "none", **cfg}, "reshape_activations", {"none": None}, path)
    found = tensors(source / "sae_weights.safetensors")
    weights, scale = picked(found, NAMES, source), 1.0
    if not cfg.get("apply_b_dec_to_input", True):  # ours always is
        weights = weights._replace(b_enc=weights.b_enc + weights.W_enc @ weights.b_pre)
    if cfg.get("rescale_acts_by_decoder_norm", False):
        weights = unit_decoder(weights)
    if unit:
        scale = math.sqrt(weights.b_pre.numel())
        weights = weights._replace(b_enc=weights.b_enc / scale, b_pre=weights.b_pre / scale)
    hook = (cfg.get("metadata") or {}).get("hook_name")
    if architecture == "jumprelu":
        return Foreign(with_threshold(JUMPS[unit], weights, named(found, "threshold", source) / scale, source), hook)
    arguments: dict[str, Any] = {"l1": 0.0, "encoder_bias": True}  # l1 is of training only
    if architecture == "topk":
        arguments = {"k": whole_k(cfg.get("k", k), path)}
    return Foreign(assembled(KINDS[architecture, unit], weights, source, **arguments), hook)


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """One of WRITES, exactly."""
    unit = not isinstance(sae, RawInputs)
    scale = math.sqrt(sae.d_model) if unit else 1.0
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu() for tensor in sae.weights)
    found: dict[str, Tensor] = {"W_enc": W_enc.T, "b_enc": b_enc * scale, "W_dec": W_dec, "b_dec": b_pre * scale}
    architecture = "topk" if isinstance(sae, TopK) else "standard"
    if isinstance(sae, BatchTopK | JumpReLU):
        architecture = "jumprelu"
        found["threshold"] = sae.threshold.detach().float().cpu().clamp_min(0).expand(sae.latents) * scale
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "sae_weights.safetensors")
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
            "sae_lens_version": "6.0.0",  # without one SAELens drops the metadata
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
