"""Sparse autoencoders: from LM activations to sparse codes and back."""

from bisae.sae.architectures.batch_topk import BatchTopK
from bisae.sae.architectures.jump_relu import JumpReLU
from bisae.sae.architectures.matryoshka import Matryoshka
from bisae.sae.architectures.relu_l1 import ReLUL1
from bisae.sae.architectures.topk import TopK
from bisae.sae.encoder import Codes, Weights
from bisae.sae.sparse_autoencoder import Reconstruction, SparseAutoencoder, TrainingLoss
from bisae.sae.store import load, load_metadata, save

__all__ = [
    "BatchTopK",
    "Codes",
    "JumpReLU",
    "Matryoshka",
    "ReLUL1",
    "Reconstruction",
    "SparseAutoencoder",
    "TopK",
    "TrainingLoss",
    "Weights",
    "load",
    "load_metadata",
    "save",
]
