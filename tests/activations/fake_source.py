"""A source without an LM: small, deterministic, and counting its passes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bisae.activations.store import TokenShard

SIZES = (40, 33, 50, 1, 47, 29)  # 200 tokens
D_MODEL = 8


@dataclass
class FakeSource:
    """Six uneven shards. `log`, if given, gets a line for each LM pass, from whatever process.

    `held`: the shards asked for and not forgotten. `slips`: calls that would cost a real source a reading of the corpus
    from its beginning, or its sanity.
    """

    checkpoint: int = 10
    log: Path | None = None
    seconds_per_pass: float = 0.0
    fails_at: int | None = None  # the shard whose LM pass fails
    passes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    d_model: int = D_MODEL
    asked: list[int] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    slips: list[str] = field(default_factory=list)
    released: bool = False
    _running: bool = False

    @property
    def fingerprint(self) -> dict[str, object]:
        return {"model": "fake", "checkpoint": self.checkpoint, "languages": ["en", "fr"]}

    @property
    def depth(self) -> int:
        return 4

    def ended(self) -> str:
        return "en ran out after 83 tokens"

    def remarks(self) -> list[str]:
        return []

    def forget(self, shard: int) -> None:
        self.held.discard(shard)

    def ready(self, layers: Sequence[int]) -> None: ...

    def release(self) -> None:
        self.released = True

    def tokens(self, shard: int) -> TokenShard | None:
        if self._running:
            self.slips.append(f"tokens of shard {shard} during an LM pass")
        self.asked.append(shard)
        self.held.add(shard)
        if shard >= len(SIZES):
            return None
        row = np.arange(sum(SIZES[:shard]), sum(SIZES[: shard + 1]))
        return TokenShard(
            token_ids=(row * 7 % 100).astype(np.int32),
            language=(row // 50 % 2).astype(np.uint8),
            document=(row // 10).astype(np.int32),
            position=(row % 10 + 1).astype(np.int16),
        )

    def activations(self, shard: int, layers: Sequence[int]) -> dict[int, Tensor]:
        self.passes.append((shard, tuple(layers)))
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{shard} {list(layers)}\n")
        if shard not in self.held:
            self.slips.append(f"an LM pass over shard {shard}, which is forgotten")
        self._running = True
        time.sleep(self.seconds_per_pass)
        self._running = False
        if shard == self.fails_at:
            raise RuntimeError(f"no memory for shard {shard}")
        return {layer: self.values(shard, layer) for layer in layers}

    def values(self, shard: int, layer: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.checkpoint * 1000 + shard * 10 + layer)
        return torch.randn(SIZES[shard], self.d_model, generator=generator).bfloat16()

    def all_values(self, layer: int) -> Tensor:
        return torch.cat([self.values(shard, layer) for shard in range(len(SIZES))])


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a cache that holds data, by its path in the folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in {".lock", "used"})
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def silent(done: int, total: int) -> None:
    """Progress that nobody sees."""
