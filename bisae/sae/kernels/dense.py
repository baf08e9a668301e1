"""The encoder's dense product on a CPU, and what its processor is quick at, by its flags and maker: nothing is timed.

PyTorch computes float32 products with MKL, which is made for Intel's processors; on AMD's oneDNN, which PyTorch has
too, takes half the time (docs/speed.md). It sums in another order, so results differ in their last bits, as they do
between processors anyway.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

PART = 2**21  # elements of one oneDNN result, which has memory of its own: larger ones would be new to each call


def _flags() -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def _is_amd(flags: Mapping[str, Any]) -> bool:
    return "AMD" in str(flags.get("cpu_name", ""))


def quick_in_bf16(device: torch.device) -> bool:
    """Whether bf16 products take at most half as long as those in float32.

    They do with AMX, and with AVX-512's bf16 on AMD's processors; on Intel's the latter are slower than float32. GPUs
    have matrix units for bf16, and none for float32, from compute capability 8 on; none was measured.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = _flags() if device.type == "cpu" else {}
    return bool(flags.get("amx_bf16") or (flags.get("avx512_bf16") and _is_amd(flags)))


@cache
def has_onednn() -> bool:
    """Whether `product` uses oneDNN: on AMD's processors with AVX-512."""
    flags = _flags()
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and bool(flags.get("avx512_f")) and _is_amd(flags)


def exact(values: Tensor) -> bool:
    """Whether products of `values` have float32's or float64's precision: no autocast, no lower precision asked for."""
    if torch.is_autocast_enabled(values.device.type):
        return False
    return values.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"


def product(
    x: Float[Tensor, "token d_model"],
    W: Float[Tensor, "latent d_model"],
    b: Float[Tensor, " latent"],
    out: Float[Tensor, "token latent"],
) -> Float[Tensor, "token latent"]:
    """`x @ W.T + b`, written to `out`; without gradients."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not exact(x) or not has_onednn():
        return torch.addmm(b, x, W.T, out=out)
    size = max(1, PART // max(1, len(x)))
    for first in range(0, len(W), size):
        part = slice(first, first + size)
        out[:, part] = torch.ops.mkldnn._linear_pointwise(x, W[part], b[part], "none", [], "")
    return out
