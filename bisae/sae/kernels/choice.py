"""Which way of computing is the quickest on a device, as benchmarks/device.py found it there."""

import json
import re
from functools import cache
from math import log
from pathlib import Path
from typing import Any

import torch

# {device: [{d_model, latents, batch, k, precision, backend, ratio}]}; benchmarks/device.py writes it.
MEASURED = Path(__file__).parent / "measured.json"


def slug(name: str) -> str:
    """A device's name as a file's: `NVIDIA H100 80GB HBM3` is `nvidia_h100_80gb_hbm3`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@cache
def _measured(path: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def quickest(device: torch.device, latents: int, d_model: int, precision: str, tokens: int) -> str | None:
    """The backend that was the quickest at the nearest measured size; None on a device that was not measured.

    `torch`, `candidates` or `triton`; `precision` is `bf16-mixed` or `32-true`. It follows from device and sizes
    alone, so that one command gives one result.
    """
    if device.type != "cuda":
        return None
    measured = _measured(MEASURED).get(slug(torch.cuda.get_device_name(device)), [])
    rows = [row for row in measured if row["precision"] == precision]
    sizes = {"d_model": d_model, "latents": latents, "batch": tokens}

    def away(row: dict[str, Any]) -> float:
        return sum(abs(log(row[name] / size)) for name, size in sizes.items())

    found: str | None = min(rows, key=away)["backend"] if rows else None
    return found
