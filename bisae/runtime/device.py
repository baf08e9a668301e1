"""Devices and dtypes by name."""

from typing import Any

from bisae.runtime.errors import Refused

DTYPES = ("float32", "bfloat16", "float16")


def torch_dtype(name: str) -> Any:
    """Return the torch.dtype with this name. Raises Refused (`dtype`) if it is not one of `DTYPES`."""
    if name not in DTYPES:
        raise Refused("dtype", name, f"choose one of {', '.join(DTYPES)}")
    import torch  # slow: a command that finds its cells finished needs none

    return getattr(torch, name)


def torch_device(name: str) -> Any:
    """Return a torch.device: for `auto`, a GPU if there is one. Raises Refused (`device`) where there is none."""
    import torch

    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise Refused("device", name, "choose auto, cpu, or cuda where there is a GPU")
    sum_in_float32()
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def sum_in_float32() -> None:
    """Forbid GPUs to add parts of a bf16 product in bf16, which PyTorch allows by default. Of the whole process."""
    import torch

    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def sums_in_float32(device: Any) -> bool:
    """Whether bf16 products are sums in float32, rounded once: always on a CPU."""
    import torch

    return device.type != "cuda" or not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
