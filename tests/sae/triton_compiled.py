"""Compiles every Triton kernel for an H100, which takes no GPU; the interpreter accepts what the compiler refuses."""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bisae.sae.kernels import triton_products, triton_selection

NUMBERS = {"latents", "k", "bags", "d_model"}
TILE = {"many": 4, "width": 64}
CASES: list[tuple[Any, dict[str, Any]]] = [
    (triton_selection._largest, {"groups": 16, "members": 4, "sorted_k": 4}),
    (triton_products._sums, {"before": None, "bag_of": None, "part": 0, **TILE}),
    (triton_products._sums, {"part": 128, **TILE}),
    (triton_products._add_others, TILE),
    (triton_products._dots, TILE),
]


def kind(name: str) -> str:
    if name in NUMBERS:
        return "i32"
    return {"indices": "*i64", "offsets": "*i64", "before": "*i32", "bag_of": "*i32"}.get(name, "*fp32")


for kernel, constants in CASES:
    signature = {name: "constexpr" if name in constants else kind(name) for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    triton.compile(ASTSource(kernel, signature, places), target=GPUTarget("cuda", 90, 32))
