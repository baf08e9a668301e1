"""What a ladder of the grid takes, by arithmetic: bytes, floating-point operations, hours, for each store.

Estimates: sequences are taken as full, shards as whole, and a job's LM, disk and SAEs as working one after another.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bisae.activations.manifest import BYTES_PER_VALUE
from bisae.activations.stores import STORES
from bisae.config.objects import target_of
from bisae.grid.device import GIB, Device, Speeds
from bisae.grid.ladders import Ladder, Pass
from bisae.runtime.errors import ConfigError

FLOAT = 4  # bytes of an SAE's values
USABLE = 0.85  # of memory: allocators, libraries and the processes themselves take the rest
LM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BLOCK_VALUES = 16  # of d_model a token inside one decoder block, about
CONTEXT_BYTES = 9  # a context in an analysis: feature, rank, sequence, peak, activation, before compression


@dataclass(frozen=True)
class Cost:
    """Of `ladder` with activations kept in `store`. All bytes are of one job, or of one cell where it says so."""

    ladder: Ladder
    store: str  # one of STORES
    device: Device
    most: int | None  # SAEs a pass; None: as many as fit

    def __post_init__(self) -> None:
        if self.job_memory(self.members) > self._room or self.job_ram(self.members) > USABLE * self.device.ram:
            memory, ram = (size / GIB for size in (self.job_memory(self.members), self.job_ram(self.members)))
            needed = f"a job of {self.ladder.preset} needs {memory:.3g} GiB of memory, {ram:.3g} GiB of RAM"
            remedy = f"{needed}; lower layers_at_once, data.batch or data.pool_batches"
            raise ConfigError("activations", self.store, f"does not fit {self.device.name}: {remedy}")

    # Sizes.

    @cached_property
    def sae_values(self) -> list[int]:
        """Parameters of the SAEs of one layer."""
        d = self.ladder.shape.d_model
        return [2 * sae["latents"] * d + sae["latents"] + d for sae in self.ladder.saes]

    @cached_property
    def members(self) -> int:
        """SAEs a pass: at most `most`, of whole layers, at least those of one."""
        layer = len(self.ladder.saes)
        wanted = self.most or len(self.ladder.layers) * layer
        fitting = range(layer, wanted + 1, layer)
        good = [m for m in fitting if self.job_memory(m) <= self._room and self.job_ram(m) <= USABLE * self.device.ram]
        return max(layer, wanted if self.most else max(good, default=0))

    @property
    def passes(self) -> list[Pass]:
        return self.ladder.passes(self.members)

    @property
    def _room(self) -> float:
        return USABLE * (self.device.memory or self.device.ram)

    @property
    def _data(self) -> Any:
        return self.ladder.settings["data"]

    @property
    def tokens(self) -> int:
        """Training and held-out tokens that the LM reads for one pass over them."""
        return int(self._data["tokens"] + self._data["validation_tokens"])

    @property
    def row(self) -> int:
        """Bytes of one token's activation at one layer."""
        return BYTES_PER_VALUE * self.ladder.shape.d_model

    @property
    def _shard(self) -> int:
        reading = self.ladder.settings["activations"]["pass"]
        return int(reading["lm_batch"] * reading["shard_batches"] * reading["context"])

    @property
    def _window(self) -> int:
        data = self._data
        return int(min(data["tokens"], data["window_pools"] * data["pool_batches"] * data["batch"]))

    # Bytes of a job.

    def sae_bytes(self, members: int) -> int:
        """On the device: weights, Adam's two moments and, unless the optimizer takes them as they come, gradients."""
        optimizer = target_of("optimizer.partial", self.ladder.settings["optimizer"]["partial"])
        return (
            (3 if hasattr(optimizer, "take") else 4) * FLOAT * sum(self.sae_values) * members // len(self.ladder.saes)
        )

    def job_memory(self, members: int) -> int:
        """On the device: SAEs, a batch and its pre-activations, and the LM while it runs beside them."""
        data, shape, reading = self._data, self.ladder.shape, self.ladder.settings["activations"]["pass"]
        layers = members // len(self.ladder.saes)
        latents = max(sae["latents"] for sae in self.ladder.saes)
        batch = data["batch"] * (FLOAT * latents + (self.row + 4 * FLOAT * shape.d_model) * layers)
        streams = reading["lm_batch"] * (reading["context"] + 1) * shape.d_model * (layers + BLOCK_VALUES)
        lm = LM_BYTES[reading["lm_dtype"]] * (shape.parameters(max(self.ladder.layers)) + streams)
        saes = self.sae_bytes(members) + batch
        return max(saes, lm) if STORES[self.store].shared else saes + lm

    def job_ram(self, members: int) -> int:
        """In RAM: a pool, the shard the LM writes and, streaming, a window."""
        layers = members // len(self.ladder.saes)
        pool = min(self._data["tokens"], self._data["pool_batches"] * self._data["batch"])
        kept = (
            self._window + min(self._window, self._data["validation_tokens"]) if not STORES[self.store].on_disk else 0
        )
        at_once = len(self.ladder.layers) if STORES[self.store].shared else layers
        rows = (pool + kept) * layers + self._shard * at_once
        in_ram = 0 if self.device.memory else self.job_memory(members)
        return rows * self.row + in_ram

    @property
    def activation_bytes(self) -> int:
        """On disk while a job runs; a shared store keeps them, all layers of its checkpoint."""
        if not STORES[self.store].on_disk:
            return 0
        if STORES[self.store].shared:
            return self.tokens * self.row * len(self.ladder.layers)
        texts = self._data["tokens"], self._data["validation_tokens"]
        rows = sum(min(2 * self._window + 3 * self._shard, text + self._shard) for text in texts)
        return rows * self.row * max(len(part.layers) for part in self.passes)

    @property
    def save_bytes(self) -> int:
        """Of the save a job goes on from, twice while the next is written."""
        return 2 * 3 * FLOAT * sum(self.sae_values) * max(len(part.layers) for part in self.passes)

    # Bytes of the whole ladder.

    @property
    def result_bytes(self) -> int:
        """Of all cells."""
        return FLOAT * sum(self.sae_values) * len(self.ladder.layers) * len(self.ladder.steps)

    @property
    def code_bytes(self) -> int:
        """Codes of the analysed text of all cells, in the cache: a row and a value each firing."""
        tokens = self.ladder.settings["size"]["analysis_tokens"]
        firings = sum(sae.get("k", 0) for sae in self.ladder.saes) * tokens
        return 8 * firings * len(self.ladder.layers) * len(self.ladder.steps)

    def pattern_bytes(self, contexts: int) -> int:
        """Contexts of all features, at most, before compression."""
        a_context = CONTEXT_BYTES + self.ladder.settings["activations"]["pass"]["context"]
        latents = sum(sae["latents"] for sae in self.ladder.saes)
        return a_context * contexts * latents * len(self.ladder.layers) * len(self.ladder.steps)

    # Work of the whole ladder.

    @property
    def lm_passes(self) -> int:
        """How often the LM reads the text: of a checkpoint once (cached), or once an epoch and pass."""
        return len(self.ladder.steps) * (1 if STORES[self.store].shared else len(self.passes) * self._data["epochs"])

    @property
    def lm_flops(self) -> int:
        shape, context = self.ladder.shape, self.ladder.settings["activations"]["pass"]["context"]
        if STORES[self.store].shared:
            depths = shape.flops(max(self.ladder.layers), context)
        else:
            depths = self._data["epochs"] * sum(shape.flops(max(part.layers), context) for part in self.passes)
        return depths * self.tokens * len(self.ladder.steps)

    @property
    def sae_flops(self) -> int:
        """Of the encoders' products, which `Speeds.sae` counts."""
        products = 2 * self.ladder.shape.d_model * sum(sae["latents"] for sae in self.ladder.saes)
        return products * self.tokens * self._data["epochs"] * len(self.ladder.layers) * len(self.ladder.steps)

    @property
    def moved_bytes(self) -> int:
        """Activations written and read again."""
        if not STORES[self.store].on_disk:
            return 0
        rows = self.tokens * len(self.ladder.layers) * len(self.ladder.steps)
        epochs = self._data["epochs"]
        return rows * self.row * (1 + epochs if STORES[self.store].shared else 2 * epochs)

    def hours(self, speeds: Speeds) -> float:
        """Of one device."""
        seconds = self.lm_flops / speeds.lm + self.sae_flops / speeds.sae + self.moved_bytes / speeds.disk
        seconds += self.device.start_s * len(self.ladder.steps) * len(self.passes)
        return seconds / 3600
