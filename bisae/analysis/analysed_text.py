"""The text that cells are analysed on, and how it is read."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from bisae.activations.store import Store
from bisae.cells.find import FoundCell
from bisae.sae import SparseAutoencoder, load


@dataclass(frozen=True, eq=False)
class AnalysedText:
    """The text that is read, where activations and codes are stored, and the device on which SAEs run.

    `take_short`: accept a split that holds fewer than `tokens` tokens. `classes`: classes of SAEs that are accepted
    besides bisae's own.
    """

    split: str
    tokens: int
    store: Store
    codes: Path
    device: str
    take_short: bool = False
    classes: tuple[type[SparseAutoencoder], ...] = ()

    @property
    def sae_device(self) -> str:
        return "cuda" if self.device == "auto" and torch.cuda.is_available() else self.device.replace("auto", "cpu")

    @property
    def room_for_saes(self) -> int:
        """Bytes of weights of SAEs that are held at once: a quarter of what the device has."""
        if self.sae_device == "cuda":
            return torch.cuda.mem_get_info()[1] // 4
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4

    def sae(self, cell: FoundCell) -> SparseAutoencoder:
        """The SAE of a cell, on the device. Raises like `load`."""
        return load(cell.folder, self.sae_device, self.classes)
