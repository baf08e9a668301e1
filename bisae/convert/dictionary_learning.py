"""dictionary_learning: `ae.pt`, a state dict, and `config.json` with the trainer's settings. Inputs are raw."""

from pathlib import Path
from typing import Any

import torch

from bisae.atomic import write_json
from bisae.cells import FoundCell
from bisae.convert.hook import submodule
from bisae.convert.source import Foreign, assembled, picked, refused, settings, tensors, unit_decoder, wanted, whole_k
from bisae.sae import SparseAutoencoder, TopK
from bisae.sae.raw import RawReLU, RawTopK

SHARED = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight.T"}
KINDS = {"AutoEncoderTopK": (RawTopK, "b_dec"), "AutoEncoder": (RawReLU, "bias")}  # and the name of b_pre
WRITES: tuple[type[SparseAutoencoder], ...] = (RawTopK, RawReLU)


def read(source: Path, k: int | None) -> Foreign:
    """An AutoEncoderTopK, or an AutoEncoder, which gets directions of norm 1 as by its own loader."""
    path = source / "config.json"
    trainer = settings(path).get("trainer")
    if not isinstance(trainer, dict):
        raise refused(path, "has no `trainer`")
    kind, b_pre = wanted(trainer, "dict_class", KINDS, path)
    found = tensors(source / "ae.pt")
    weights = picked(found, {**SHARED, "b_pre": b_pre}, source)
    if kind is RawTopK:
        arguments: dict[str, Any] = {"k": whole_k(trainer.get("k", k), path)}
    else:
        weights, arguments = unit_decoder(weights), {"l1": 0.0, "encoder_bias": True}  # l1 is of training only
    sae = assembled(kind, weights, source, **arguments)
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
        "submodule_name": submodule(cell.layer),
    }
    if isinstance(sae, TopK):
        found |= {"b_dec": b_pre, "k": torch.tensor(sae.k, dtype=torch.int32), "threshold": torch.tensor(-1.0)}
        trainer |= {"dict_class": "AutoEncoderTopK", "trainer_class": "TopKTrainer", "k": sae.k}
    else:
        found["bias"] = b_pre
        trainer |= {"dict_class": "AutoEncoder", "trainer_class": "StandardTrainer"}
    torch.save(found, folder / "ae.pt")
    write_json(folder / "config.json", {"trainer": trainer})
