"""A device that runs jobs; its figures are given, or found and measured on this machine."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from bisae.config.instantiate import instantiate
from bisae.config.settings import SAEKeys
from bisae.grid import known_speeds as known
from bisae.grid.ladders import Ladder, existing
from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Positive, Text
from bisae.sae.kernels.paper import Ceilings

GIB = 2**30
LATENTS, TOKENS, SEQUENCES = 8192, 1024, 16  # upper bounds of the size that is measured
WRITTEN = 2**26  # bytes
PAPER_SOURCE = "on paper"
KERNELS = "with the Triton kernels: add sae=topk_triton until benchmarks/device.py has found them the quickest"
PAPER = (*Ceilings._fields, "lm", "disk")


class Speeds(NamedTuple):
    """Operations a second of an LM pass and of an SAE step (its encoder's product only); bytes a second of the disk.

    `sources`: where each of the three comes from.
    """

    lm: float
    sae: float
    disk: float
    sources: tuple[str, str, str] = ("given", "given", "given")


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
        per_job: devices of one machine that a job may spread its SAEs over.
        results: device whose results of benchmarks/device.py count, or a file of such; None: this machine's GPU.
        on_paper: what counts where nothing is given or measured, in 10^12 a second: `Ceilings`, of which an SAE step
            is estimated, operations of an LM pass, bytes of the disk.
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
    per_job: Count = 1
    results: Text | None = None
    on_paper: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for field in ("count", "per_job"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise Refused(field, value, "must be a whole number, at least 1")
        if self.on_paper is not None and set(self.on_paper) != set(PAPER):
            raise Refused("on_paper", dict(self.on_paper), f"must have {', '.join(PAPER)}")
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
        """Each speed as given, else of the device's results, else on paper, else measured here in some seconds."""
        stages, of = self._results or ({}, "")
        paper = {name: 1e12 * value for name, value in (self.on_paper or {}).items()}
        ceilings = Ceilings(*(paper[name] for name in Ceilings._fields)) if paper else None

        def first(
            given: float | None, found: float | None, estimate: int | float | None, here: Callable[[], float]
        ) -> Any:
            sources = ((given, "given"), (found, of), (estimate, PAPER_SOURCE))
            return next(((value, source) for value, source in sources if value), None) or (here(), "measured here")

        of_lm = known.measured_lm(stages)
        lm = first(_times(self.lm_tflops, 1e12), of_lm, paper.get("lm"), lambda: measured_lm(ladder))
        sae = first(
            _times(self.sae_tflops, 1e12),
            known.measured_sae(stages, ladder),
            ceilings and known.sae_on_paper(ceilings, ladder),
            lambda: measured_sae(ladder),
        )
        cache = Path(ladder.settings["cache"])
        disk = first(_times(self.disk_gbs, 1e9), None, paper.get("disk"), lambda: measured_disk(cache))
        kernels = f"{PAPER_SOURCE}, {KERNELS}" if sae[1] == PAPER_SOURCE else sae[1]
        return Speeds(lm[0], sae[0], disk[0], (lm[1], kernels, disk[1]))

    @cached_property
    def _results(self) -> tuple[Mapping[str, Any], str] | None:
        if self.results is None and not torch.cuda.is_available():
            return None
        return known.read_results(self.results or torch.cuda.get_device_name())


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


def _times(value: int | float | None, unit: float) -> float | None:
    return None if value is None else value * unit


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
