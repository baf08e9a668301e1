"""Devices and dtypes by name."""

import torch

from bisae.runtime.errors import Refused

DTYPES = ("float32", "bfloat16", "float16")


def torch_dtype(name: str) -> torch.dtype:
    """Return the dtype with this name. Raises Refused (`dtype`) if it is not one of `DTYPES`."""
    if name not in DTYPES:
        raise Refused("dtype", name, f"choose one of {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def torch_device(name: str) -> torch.device:
    """Return a device: for `auto`, a GPU if there is one. Raises Refused (`device`) for a GPU that is not there."""
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise Refused("device", name, "choose auto, cpu, or cuda where there is a GPU")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
