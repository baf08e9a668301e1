"""Compiles every Triton kernel for an H100, which takes no GPU; the interpreter accepts what the compiler refuses."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bisae.sae.kernels import triton_products, triton_selection, triton_step

NUMBERS = {"latents", "k", "bags", "first_parts", "d_model"}
FACTORS = {"scale", "beta1", "rest1", "beta2", "rest2", "eps", "tiny"}
TILE = {"many": 4, "width": 64}
GROUPS = {"groups": 1024, "members": 32, "run": 16, "sorted_k": 32}  # of 32 768 latents, k = 32
# Kernel, its constants, and types that differ from those of `kind`.
CASES: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    (triton_selection._select, GROUPS, {"product": "*bf16"}),
    (triton_selection._select, {**GROUPS, "bias": None}, {}),
    (triton_products._sums, {"before": None, "bag_of": None, "part": 0, **TILE}, {}),
    (triton_products._sums, {"part": 128, **TILE}, {}),
    (triton_products._add_others, TILE, {}),
    (triton_products._dots, TILE, {}),
    (triton_step._decode, {"width": 2048}, {}),
    (triton_step._adam, {"part": 128, "width": 4096, "unit_rows": True}, {"offsets": "*i32"}),
]


def kind(name: str) -> str:
    if name in NUMBERS:
        return "i32"
    if name in FACTORS:
        return "fp32"
    integers = {"indices": "*i64", "offsets": "*i64"} | dict.fromkeys(("before", "bag_of", "tokens"), "*i32")
    return integers.get(name, "*fp32")


for kernel, constants, types in CASES:
    signature = {name: "constexpr" if name in constants else types.get(name, kind(name)) for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    triton.compile(ASTSource(kernel, signature, places), target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
