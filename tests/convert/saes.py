"""Random SAEs, and how far two results are apart."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bisae.cells.find import FoundCell
from bisae.sae import BatchTopK, JumpReLU, Matryoshka, ReLUL1, SparseAutoencoder, TopK
from bisae.sae.architectures.raw import RawJumpReLU, RawReLU, RawTopK
from tests.convert.peer import randomise

BATCH_TOPK = {"k": 4, "threshold_rate": 0.1, "seed": 0, "aux_k": 0, "aux_coefficient": 0.0}
JUMP_RELU = {"l0": 0.0, "initial_threshold": 0.0, "bandwidth": 1.0, "seed": 0}
ARGUMENTS: dict[type[SparseAutoencoder], dict[str, Any]] = {
    TopK: {"k": 4},
    RawTopK: {"k": 4},
    ReLUL1: {"l1": 0.0, "encoder_bias": True},
    RawReLU: {"l1": 0.0, "encoder_bias": True},
    JumpReLU: JUMP_RELU,
    RawJumpReLU: JUMP_RELU,
    BatchTopK: BATCH_TOPK,
    Matryoshka: {**BATCH_TOPK, "groups": "1/3+2/3"},
}
CELL = FoundCell(Path(), "embedded", 512, 2, "topk", "0" * 12, {"activations": {"context": 128}}, {}, {"val/fvu": 0.1})


def random_sae(kind: type[SparseAutoencoder], d_model: int = 8, latents: int = 24) -> SparseAutoencoder:
    """No bias zero, and unit norms in the decoder, as training leaves them."""
    sae = kind(d_model=d_model, latents=latents, **ARGUMENTS[kind])
    randomise(sae)
    if isinstance(sae, BatchTopK):
        sae.threshold.fill_(0.5)
    sae.normalize_decoder()
    return sae


@torch.no_grad()
def results(sae: SparseAutoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions of activations."""
    return sae.encode(x).dense(), sae.reconstruct(x).activation


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, of the largest value."""
    assert theirs.abs().max() > 0 and ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
