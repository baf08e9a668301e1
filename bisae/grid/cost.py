"""The cost of a ladder with each activation store: bytes, floating-point operations and hours, by arithmetic.

The estimates assume full sequences and whole shards, and that LM, disk and SAEs of a job work one after another.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bisae.activations.feed import held_out_window
from bisae.activations.manifest import BYTES_PER_VALUE
from bisae.activations.registry import STORES
from bisae.activations.streaming import BATCHES, shards_at_once
from bisae.config.objects import target_of
from bisae.features.analysed_activations import WINDOW
from bisae.grid.device import GIB, Device, Speeds
from bisae.grid.ladders import Ladder, Pass
from bisae.runtime.errors import Refused

FLOAT = 4  # bytes of an SAE's values
USABLE = 0.85  # share of memory; allocators, libraries and processes take the rest
LM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
BLOCK_VALUES = 16  # values that one decoder block holds for each token, in units of d_model; about
CONTEXT_BYTES = 9  # of a context in an analysis besides its tokens, before compression: feature, rank, ...


@dataclass(frozen=True)
class Cost:
    """The cost of training `ladder` with activations in `store` on `device`.

    Args:
        most: SAEs trained side by side; None: as many as fit.
        devices: of one machine, over which a job spreads its SAEs; they share the LM pass.

    Raises:
        Refused: not even one layer's SAEs fit.
    """

    ladder: Ladder
    store: str  # one of STORES
    device: Device
    most: int | None
    devices: int = 1

    def __post_init__(self) -> None:
        if not self._fits(self.members):
            memory, ram = (size / GIB for size in (self.job_memory(self.members), self.job_ram(self.members)))
            needed = f"a job of {self.ladder.preset} needs {memory:.3g} GiB of memory, {ram:.3g} GiB of RAM"
            remedy = f"{needed}; lower layers_at_once, batch or pool_batches"
            raise Refused("activations", self.store, f"does not fit {self.device.name}: {remedy}")

    # Sizes.

    @cached_property
    def sae_values(self) -> list[int]:
        """Parameters of the SAEs of one layer."""
        d = self.ladder.shape.d_model
        return [2 * sae["latents"] * d + sae["latents"] + d for sae in self.ladder.saes]

    @cached_property
    def members(self) -> int:
        """SAEs trained side by side: those of as many layers as fit, of one at least, `most` at most."""
        layer = len(self.ladder.saes)
        wanted = self.most or len(self.ladder.layers) * layer
        fitting = range(layer, wanted + 1, layer)
        return max(layer, wanted if self.most else max(filter(self._fits, fitting), default=0))

    def _fits(self, members: int) -> bool:
        ram = USABLE * self.device.ram * self.devices
        return self.job_memory(members) <= self._room and self.job_ram(members) <= ram

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
        """Bytes of SAEs on the device: weights, Adam's two moments and, unless the optimizer takes them, gradients."""
        optimizer = target_of("optimizer.partial", self.ladder.settings["optimizer"]["partial"])
        matrices = 3 if hasattr(optimizer, "take") else 4
        return matrices * FLOAT * sum(self.sae_values) * members // len(self.ladder.saes)

    def job_memory(self, members: int) -> int:
        """Bytes of a job on a device: SAEs, a batch, its pre-activations, and the LM if it runs at the same time."""
        data, shape, reading = self._data, self.ladder.shape, self.ladder.settings["activations"]["pass"]
        every = members // len(self.ladder.saes)
        members = -(-members // self.devices)
        layers = -(-every // self.devices)
        latents = max(sae["latents"] for sae in self.ladder.saes)
        batch = data["batch"] * (FLOAT * latents + (self.row + 4 * FLOAT * shape.d_model) * layers)
        streams = reading["lm_batch"] * (reading["context"] + 1) * shape.d_model * (every + BLOCK_VALUES)
        lm = LM_BYTES[reading["lm_dtype"]] * (shape.parameters(max(self.ladder.layers)) + streams)
        saes = self.sae_bytes(members) + batch
        return max(saes, lm) if STORES[self.store].shared else saes + lm

    def job_ram(self, members: int) -> int:
        """Bytes of a job in RAM: a pool or, for `streaming`, windows; the shards that the LM makes; pinned batches."""
        layers, data, on_gpu = members // len(self.ladder.saes), self._data, bool(self.device.memory)
        if STORES[self.store].on_disk:
            at_once = len(self.ladder.layers) if STORES[self.store].shared else layers
            pool = min(data["tokens"], data["pool_batches"] * data["batch"])
            rows = pool * layers + 2 * self.devices * self._shard * at_once  # one is written while the next is computed
        else:
            windows = self._window + min(held_out_window(self._window), data["validation_tokens"])
            shards = self.devices * shards_at_once(layers, 0, ahead=on_gpu) + layers
            rows = windows * layers + shards * self._shard
        if on_gpu:
            return (rows + BATCHES * data["batch"] * layers) * self.row
        return rows * self.row + self.job_memory(members) * self.devices

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations on disk while a job runs; a shared store holds all layers of its checkpoint."""
        if not STORES[self.store].on_disk:
            return 0
        if STORES[self.store].shared:
            return self.tokens * self.row * len(self.ladder.layers)
        texts = self._data["tokens"], self._data["validation_tokens"]
        rows = sum(min(2 * self._window + 3 * self._shard, text + self._shard) for text in texts)
        return rows * self.row * max(len(part.layers) for part in self.passes)

    @property
    def save_bytes(self) -> int:
        """Bytes of a job's saves: the last one, and the next while it is written."""
        return 2 * 3 * FLOAT * sum(self.sae_values) * max(len(part.layers) for part in self.passes)

    # Bytes of the whole ladder.

    @property
    def result_bytes(self) -> int:
        """Bytes of all cells."""
        return FLOAT * sum(self.sae_values) * len(self.ladder.layers) * len(self.ladder.steps)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes of all cells on the analysed text, in the cache (`bisae.features.codes.CodesFolder`)."""
        tokens = self.ladder.settings["size"]["analysis_tokens"]
        firings = sum(sae.get("k", 0) for sae in self.ladder.saes) * tokens
        counts = sum(sae["latents"] for sae in self.ladder.saes) * -(-tokens // WINDOW)
        return (4 * firings + 6 * counts) * len(self.ladder.layers) * len(self.ladder.steps)

    def pattern_bytes(self, contexts: int) -> int:
        """Bytes of the contexts of all features before compression, at most; `contexts` of a feature."""
        a_context = CONTEXT_BYTES + self.ladder.settings["activations"]["pass"]["context"]
        latents = sum(sae["latents"] for sae in self.ladder.saes)
        return a_context * contexts * latents * len(self.ladder.layers) * len(self.ladder.steps)

    # Work of the whole ladder.

    @property
    def lm_passes(self) -> int:
        """Times that the LM reads the text: once for a checkpoint (shared store), else once for each epoch and pass."""
        return len(self.ladder.steps) * (1 if STORES[self.store].shared else len(self.passes) * self._data["epochs"])

    @property
    def lm_flops(self) -> int:
        """Floating-point operations of all LM passes."""
        shape, context = self.ladder.shape, self.ladder.settings["activations"]["pass"]["context"]
        if STORES[self.store].shared:
            depths = shape.flops(max(self.ladder.layers), context)
        else:
            depths = self._data["epochs"] * sum(shape.flops(max(part.layers), context) for part in self.passes)
        return depths * self.tokens * len(self.ladder.steps)

    @property
    def sae_flops(self) -> int:
        """Floating-point operations of the encoders' matrix products, the ones that `Speeds.sae` counts."""
        products = 2 * self.ladder.shape.d_model * sum(sae["latents"] for sae in self.ladder.saes)
        return products * self.tokens * self._data["epochs"] * len(self.ladder.layers) * len(self.ladder.steps)

    @property
    def moved_bytes(self) -> int:
        """Bytes of activations written to disk and read again."""
        if not STORES[self.store].on_disk:
            return 0
        rows = self.tokens * len(self.ladder.layers) * len(self.ladder.steps)
        epochs = self._data["epochs"]
        return rows * self.row * (1 + epochs if STORES[self.store].shared else 2 * epochs)

    def hours(self, speeds: Speeds) -> float:
        """Hours of one device in all; devices of a job wait for the one with the most SAEs, and for its start."""
        sizes = [len(part.layers) * len(self.ladder.saes) for part in self.passes]
        waiting = sum(-(-size // self.devices) * self.devices for size in sizes) / sum(sizes)
        seconds = self.lm_flops / speeds.lm + waiting * self.sae_flops / speeds.sae + self.moved_bytes / speeds.disk
        seconds += self.device.start_s * len(self.ladder.steps) * len(self.passes) * self.devices
        return seconds / 3600
