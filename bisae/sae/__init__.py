"""Sparse autoencoders: from LM activations to sparse codes and back."""

from bisae.sae.batch_topk import BatchTopK
from bisae.sae.codes import Codes
from bisae.sae.jump_relu import JumpReLU
from bisae.sae.matryoshka import Matryoshka
from bisae.sae.relu_l1 import ReLUL1
from bisae.sae.sparse_autoencoder import Reconstruction, SparseAutoencoder, TrainingLoss
from bisae.sae.store import load, load_metadata, save
from bisae.sae.topk import TopK
from bisae.sae.weights import Weights

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
