"""What is measured: device and versions."""

import os
import platform
from typing import Any

import numpy as np
import torch

from bisae.sae.kernels.choice import slug

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def about() -> dict[str, Any]:
    cuda = DEVICE.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"cpu {platform.machine()}"
    found: dict[str, Any] = {
        "device": name,
        "slug": slug(name),
        "devices": torch.cuda.device_count(),
        "cores": os.cpu_count(),
    }
    if cuda:
        properties = torch.cuda.get_device_properties(0)
        found |= {"memory_bytes": properties.total_memory, "capability": list(torch.cuda.get_device_capability())}
    return found | {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
        "triton": triton_version(),
    }


def triton_version() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def has_triton() -> bool:
    """Whether the kernels run here: on a GPU, or in Triton's interpreter."""
    return triton_version() is not None and (DEVICE.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
