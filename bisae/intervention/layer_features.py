"""The donor's features: the SAE of each layer and its cell's `features.parquet`."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool

from bisae.analysis.folder import FEATURES
from bisae.cells import FoundCell
from bisae.errors import ConfigError
from bisae.lm.model import checksum
from bisae.sae import SparseAutoencoder, load


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """The features of one SAE: `table` is the cell's `features.parquet`, made by the rules of that name."""

    cell: FoundCell
    sae: SparseAutoencoder
    checksum: str
    table: pd.DataFrame
    rules: str

    @classmethod
    def read(cls, cell: FoundCell, device: torch.device) -> "LayerFeatures":
        """ConfigError if the cell is not analysed, or its features are another SAE's."""
        path = cell.folder / FEATURES
        if not path.is_file():
            remedy = (
                "analyse the cell first: python analyze.py space=shipped, or give 'analyze=[\"space=shipped\"]' here"
            )
            raise ConfigError("analyze", None, f"{cell.folder} has no {FEATURES}; {remedy}")
        sae = load(cell.folder, str(device))
        table, about = pd.read_parquet(path), pq.read_schema(path).metadata or {}
        if len(table) != sae.latents or not {"class", "bilingual", "aligned", "maximum"} <= set(table):
            raise ConfigError("runs", path, f"has {len(table)} features, the SAE {sae.latents}: analyse the cell again")
        rules = json.loads(about.get(b"bisae", b"{}")).get("name", "")
        return cls(cell, sae.requires_grad_(False), checksum([cell.folder / "sae.safetensors"]), table, rules)

    def tensor(self, numbers: Bool[np.ndarray, " latent"]) -> Bool[torch.Tensor, " latent"]:
        """A set of features, where the SAE is."""
        return torch.tensor(numbers, device=self.sae.W_dec.device)


def mark(numbers: Bool[np.ndarray, " latent"]) -> str:
    """A checksum of a set of features."""
    return hashlib.sha256(np.packbits(numbers).tobytes()).hexdigest()[:16]
