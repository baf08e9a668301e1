"""dictionary_learning: `ae.pt`, a state dict, and `config.json` with the trainer's settings. Inputs are raw."""

from pathlib import Path

import torch

from bisae.atomic import write_json
from bisae.cells import FoundCell
from bisae.convert.hook import submodule
from bisae.convert.source import (
    Foreign,
    assembled,
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
from bisae.sae import JumpReLU, SparseAutoencoder, TopK
from bisae.sae.raw import RawJumpReLU, RawReLU, RawTopK

MODULES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T", "b_pre": "b_dec"}
TENSORS = {"W_enc": "W_enc.T", "b_enc": "b_enc", "W_dec": "W_dec", "b_pre": "b_dec"}
KINDS: dict[str, tuple[type[SparseAutoencoder], dict[str, str]]] = {
    "AutoEncoderTopK": (RawTopK, MODULES),
    "AutoEncoder": (RawReLU, {**MODULES, "b_pre": "bias"}),
    "BatchTopKSAE": (RawJumpReLU, MODULES),
    "MatryoshkaBatchTopKSAE": (RawJumpReLU, TENSORS),
    "JumpReluAutoEncoder": (RawJumpReLU, TENSORS),
}
WRITES: tuple[type[SparseAutoencoder], ...] = (RawTopK, RawReLU, RawJumpReLU)


def read(source: Path, k: int | None) -> Foreign:
    """One of KINDS; an AutoEncoder gets directions of norm 1, as by its own loader."""
    path = source / "config.json"
    trainer = settings(path).get("trainer")
    if not isinstance(trainer, dict):
        raise refused(path, "has no `trainer`")
    kind, names = wanted(trainer, "dict_class", KINDS, path)
    found = tensors(source / "ae.pt")
    weights = picked(found, names, source)
    if trainer["dict_class"] == "JumpReluAutoEncoder":  # does not subtract b_pre; ours always does
        weights = weights._replace(b_enc=weights.b_enc + weights.W_enc @ weights.b_pre)
    sae: SparseAutoencoder
    if kind is RawTopK:
        sae = assembled(kind, weights, source, k=whole_k(trainer.get("k", k), path))
    elif kind is RawReLU:
        sae = assembled(kind, unit_decoder(weights), source, l1=0.0, encoder_bias=True)  # l1 is of training only
    else:
        sae = with_threshold(RawJumpReLU, weights, named(found, "threshold", source), source)
    hook = trainer.get("submodule_name")
    if hook is None and trainer.get("layer") is not None:
        hook = f"resid_post_layer_{trainer['layer']}"
    return Foreign(sae, hook)


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """One of WRITES, exactly."""
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu() for tensor in sae.weights)
    found = {"encoder.weight": W_enc, "encoder.bias": b_enc, "decoder.weight": W_dec.T.contiguous()}
    trainer = {
        "activation_dim": sae.d_model,
        "dict_size": sae.latents,
        "layer": max(0, cell.layer - 1),
        "lm_name": cell.model,
        "submodule_name": submodule(cell),
    }
    if isinstance(sae, TopK):
        found |= {"b_dec": b_pre, "k": torch.tensor(sae.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
        trainer |= {"dict_class": "AutoEncoderTopK", "trainer_class": "TopKTrainer", "k": sae.k}
    elif isinstance(sae, JumpReLU):
        threshold = sae.threshold.detach().float().cpu().clamp_min(0)
        b_enc = b_enc - W_enc @ b_pre
        found = {"W_enc": W_enc.T.contiguous(), "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_pre, "threshold": threshold}
        trainer |= {"dict_class": "JumpReluAutoEncoder", "trainer_class": "JumpReluTrainer"}
    else:
        found["bias"] = b_pre
        trainer |= {"dict_class": "AutoEncoder", "trainer_class": "StandardTrainer"}
    torch.save(found, folder / "ae.pt")
    write_json(folder / "config.json", {"trainer": trainer})
