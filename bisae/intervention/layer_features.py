"""The donor's features: the SAE of each layer and its cell's `features.parquet`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool

from bisae.cells.cell import FEATURES
from bisae.cells.find import FoundCell
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum, name_of
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
    def read(
        cls, cell: FoundCell, device: torch.device, classes: Sequence[type[SparseAutoencoder]] = ()
    ) -> "LayerFeatures":
        """`classes`: as of `load`. Refused if the cell is not analysed, its SAE cannot be read, or its features are
        another SAE's."""
        path = cell.folder / FEATURES
        if not path.is_file():
            remedy = (
                "analyse the cell first: python analyze.py space=shipped, or give 'analyze=[\"space=shipped\"]' here"
            )
            raise Refused("analyze", None, f"{cell.folder} has no {FEATURES}; {remedy}")
        try:
            sae = load(cell.folder, str(device), classes)
        except (OSError, ValueError) as error:
            raise Refused("runs", cell.folder, str(error)) from error
        table, about = pd.read_parquet(path), pq.read_schema(path).metadata or {}
        if len(table) != sae.latents or not {"class", "bilingual", "aligned", "maximum"} <= set(table):
            raise Refused("runs", path, f"has {len(table)} features, the SAE {sae.latents}: analyse the cell again")
        rules = json.loads(about.get(b"bisae", b"{}")).get("name", "")
        made_from = checksum([cell.folder / "sae.safetensors"])
        if cell.encodes_as:
            made_from = name_of({"weights": made_from, **cell.encodes_as})
        return cls(cell, sae.requires_grad_(False), made_from, table, rules)

    def tensor(self, numbers: Bool[np.ndarray, " latent"]) -> Bool[torch.Tensor, " latent"]:
        """A set of features, where the SAE is."""
        return torch.tensor(numbers, device=self.sae.W_dec.device)


def mark(numbers: Bool[np.ndarray, " latent"]) -> str:
    """A checksum of a set of features."""
    return hashlib.sha256(np.packbits(numbers).tobytes()).hexdigest()[:16]
