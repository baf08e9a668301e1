"""The donor's features at one layer: the SAE and its cell's `features.parquet`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool

from bisae.cells.cell import FEATURES
from bisae.cells.find import FoundCell
from bisae.edits.resumed import RememberedCodes
from bisae.runtime.errors import Refused
from bisae.runtime.naming import checksum, name_of
from bisae.sae import SparseAutoencoder, load


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """An SAE with the table of its features.

    Attributes:
        checksum: of the SAE's weights, and of how it encodes where that is not the default.
        table: the cell's `features.parquet`, one row for each latent.
        rules: name of the settings of analyze.py that made the table.
    """

    cell: FoundCell
    sae: SparseAutoencoder
    checksum: str
    table: pd.DataFrame
    rules: str

    @classmethod
    def read(
        cls, cell: FoundCell, device: torch.device, classes: Sequence[type[SparseAutoencoder]] = ()
    ) -> "LayerFeatures":
        """Load the SAE to `device`, and its table. `classes`: SAE classes to allow besides bisae's own.

        Raises:
            Refused: the cell is not analysed, its SAE cannot be read, or the table belongs to another SAE.
        """
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
        table, metadata = pd.read_parquet(path), pq.read_schema(path).metadata or {}
        if len(table) != sae.latents or not {"class", "bilingual", "aligned", "maximum"} <= set(table):
            raise Refused("runs", path, f"has {len(table)} features, the SAE {sae.latents}: analyse the cell again")
        rules = json.loads(metadata.get(b"bisae", b"{}")).get("name", "")
        made_from = checksum([cell.folder / "sae.safetensors"])
        if cell.encodes_as:
            made_from = name_of({"weights": made_from, **cell.encodes_as})
        return cls(cell, sae.requires_grad_(False), made_from, table, rules)

    @cached_property
    def codes(self) -> RememberedCodes:
        """Encodes like the SAE, and rows that were encoded before from memory."""
        return RememberedCodes(self.sae)

    def tensor(self, numbers: Bool[np.ndarray, " latent"]) -> Bool[torch.Tensor, " latent"]:
        """A set of features as a tensor on the SAE's device."""
        return torch.tensor(numbers, device=self.sae.W_dec.device)


def mark(numbers: Bool[np.ndarray, " latent"]) -> str:
    """A checksum of a set of features."""
    return hashlib.sha256(np.packbits(numbers).tobytes()).hexdigest()[:16]
