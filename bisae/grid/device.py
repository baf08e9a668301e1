"""A device that runs jobs; its figures are given, or found and measured on this machine."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from bisae.config.instantiate import instantiate
from bisae.config.settings import SAEKeys
from bisae.grid.ladders import Ladder, existing
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Positive, Text

GIB = 2**30
LATENTS, TOKENS, SEQUENCES = 8192, 1024, 16  # upper bounds of the size that is measured
WRITTEN = 2**26  # bytes


class Speeds(NamedTuple):
    """Operations a second of an LM pass and of an SAE step (its encoder's product only); bytes a second of the disk."""

    lm: float
    sae: float
    disk: float


@dataclass(frozen=True)
class Device:
    """Devices that each run one job. None: found or measured on this machine.

    Attributes:
        count: how many.
        memory_gib: memory of one.
        ram_gib: RAM for one job.
        lm_tflops, sae_tflops: 10^12 floating-point operations a second of an LM pass, of an SAE step (`Speeds`).
        disk_gbs: 10^9 bytes a second.
        free_gib: free disk for activations and cells.
        start_s: seconds from the start of a job to its work.
    """

    name: Text
    count: Count
    memory_gib: Positive | None
    ram_gib: Positive | None
    lm_tflops: Positive | None
    sae_tflops: Positive | None
    disk_gbs: Positive | None
    free_gib: Positive | None
    start_s: int | float

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise Refused("count", self.count, "must be a whole number, at least 1")
        for field in ("memory_gib", "ram_gib", "lm_tflops", "sae_tflops", "disk_gbs", "free_gib"):
            value = getattr(self, field)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
                raise Refused(field, value, "must be a number above 0, or null: found here")

    @property
    def ram(self) -> int | float:
        """Bytes of RAM for one job."""
        here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / self.count
        return here if self.ram_gib is None else self.ram_gib * GIB

    @property
    def memory(self) -> int | float | None:
        """Bytes of device memory; None if the device is a CPU, which works in RAM."""
        if self.memory_gib is not None:
            return self.memory_gib * GIB
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None

    def speeds(self, ladder: Ladder) -> Speeds:
        """The speeds given; others are measured in some seconds, at the ladder's size or smaller."""
        return Speeds(
            lm=measured_lm(ladder) if self.lm_tflops is None else self.lm_tflops * 1e12,
            sae=measured_sae(ladder) if self.sae_tflops is None else self.sae_tflops * 1e12,
            disk=measured_disk(Path(ladder.settings["cache"])) if self.disk_gbs is None else self.disk_gbs * 1e9,
        )


def measured_lm(ladder: Ladder) -> float:
    """Floating-point operations a second of the LM's blocks, for a large LM of one block, with random weights."""
    from copy import deepcopy

    from transformers import AutoModel

    reading, shape, device = ladder.settings["activations"]["pass"], ladder.shape, _device()
    config = deepcopy(shape.config)
    text = config.get_text_config(decoder=True)
    text.vocab_size = 256  # the real embeddings would only take memory
    text.pad_token_id = None
    text.num_hidden_layers = layers = shape.layers if shape.block < 1e6 else 1
    model = AutoModel.from_config(config, dtype=getattr(torch, reading["lm_dtype"])).to(device).eval()
    context = reading["context"] + 1  # BOS
    ids = torch.ones(min(SEQUENCES, reading["lm_batch"]), context, dtype=torch.long, device=device)
    with torch.no_grad():
        seconds = _seconds(lambda: model(input_ids=ids, use_cache=False))
    return ids.numel() * shape.flops(layers, context) / seconds


def measured_sae(ladder: Ladder) -> float:
    """Floating-point operations a second of a training step of one SAE with at most 8192 latents and 1024 tokens."""
    settings, chosen, device = ladder.settings, ladder.saes[0], _device()
    latents, tokens = min(LATENTS, chosen["latents"]), min(TOKENS, settings["data"]["batch"])
    architecture = {key: value for key, value in chosen.items() if key not in SAEKeys.model_fields}
    sae = instantiate({**architecture, "latents": latents}, "sae", d_model=ladder.shape.d_model).to(device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3, fused=True)
    x, _ = sae.normalize(torch.randn(tokens, ladder.shape.d_model, device=device))

    def step() -> None:
        optimizer.zero_grad()
        loss, _, _ = sae.objective(x, None, lambda value: value, None)
        loss.backward()
        optimizer.step()
        sae.normalize_decoder()

    return 2 * tokens * latents * ladder.shape.d_model / _seconds(step)


def measured_disk(cache: Path) -> float:
    """Bytes a second of writing 64 MiB beside `cache`, through to the disk."""
    import tempfile

    with tempfile.NamedTemporaryFile(dir=existing(cache)) as file:
        data, started = os.urandom(WRITTEN), time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / (time.perf_counter() - started)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(work: Callable[[], Any]) -> float:
    """Median seconds of five calls, after one to warm up."""
    times = []
    for _ in range(6):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:])
