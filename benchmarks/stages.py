"""What each part of a step costs, in units of `torch.mm(x, W_enc.T)`: python benchmarks/stages.py [--json FILE].

The parts take turns, each called as a step calls it; a figure is the least of the rounds by the least of the unit. One
step has one way to encode, and the parts of it; decode, the gradients and Adam follow on either.
"""

from functools import partial
from typing import Any

import torch
from measuring import in_turn, options, show, write
from work import SHAPES, K, work

from bisae.sae.encoder import Codes, Weights, encode, largest, top_k
from bisae.sae.kernels import candidates
from bisae.sae.kernels.dense import product
from bisae.sae.kernels.products import SparseProducts

UNIT = "torch.mm"


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    directions, (x, *_) = work(SHAPES[name], seed=0)
    latents, d_model = directions.shape
    weights = Weights(directions, torch.zeros(latents), directions.clone(), torch.zeros(d_model))
    out, low = torch.empty(len(x), latents), torch.empty(len(x), latents, dtype=torch.bfloat16)
    left, right, *_ = candidates.extended(x, weights)
    torch.mm(left, right.T, out=low)
    pre = product(x, weights.W_enc, weights.b_enc, torch.empty_like(out))
    chosen = largest(low.view(torch.int16), candidates.START * K)
    codes, threshold = top_k(pre, K), pre.gather(1, chosen).amin()
    sparse, grad_z = SparseProducts(codes), torch.randn(len(codes.values))
    matrices = [torch.nn.Parameter(directions.clone()) for _ in range(2)]
    adam = torch.optim.Adam(matrices, fused=True)
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    works = {
        UNIT: lambda: torch.mm(x, directions.T, out=out),
        "encode, plain": lambda: encode(x, weights, partial(top_k, k=K)),
        "- float32 product": lambda: product(x, weights.W_enc, weights.b_enc, out),
        "- its k largest": lambda: largest(pre, K),
        "encode, candidates": lambda: candidates.Candidates(K, candidates.START * K)(x, weights),
        "- norms and rounding": lambda: candidates.extended(x, weights),
        "- bf16 product": lambda: torch.mm(left, right.T, out=low),
        "- its 2 k largest": lambda: largest(low.view(torch.int16), candidates.START * K),
        "- candidates in float32": lambda: candidates._dots(x, weights, chosen),
        "codes above a threshold (JumpReLU, BatchTopK)": lambda: Codes.where(pre > threshold, pre),
        "transpose of the codes": lambda: SparseProducts(codes),
        "decode": lambda: sparse.decode(weights.W_dec),
        "gradient of the activations": lambda: sparse.dots(x, weights.W_dec),
        "gradients of both matrices": lambda: [sparse.sums(x, grad_z) for _ in range(2)],
        "Adam": adam.step,
    }
    times = in_turn(works, rounds)
    unit = min(times[UNIT])
    return [
        {"name": name, "stage": stage, "seconds": min(found), "of_product": min(found) / unit}
        for stage, found in times.items()
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["A", "B", "C"])
    given = parser.parse_args()
    torch.manual_seed(0)
    found = []
    for name in ["smoke"] if given.smoke else given.shapes:
        for row in measure(name, given.rounds):
            show(row)
            found.append(row)
        write(given.json, found)


if __name__ == "__main__":
    main()
