"""How many rows the bound of sae.candidates leaves to float64: python benchmarks/candidates.py [--json FILE].

An SAE learns four batches by heart, which brings its activations as close to each other as they ever are. The table at
the end is that of docs/speed.md.
"""

from typing import Any

import torch
from measuring import options, show, write
from work import SHAPES, K, Shape, work

from bisae.sae import TopK
from bisae.sae.encoder import Weights
from bisae.sae.kernels.candidates import select

NUMBERS, STEPS, RATE = (64, 96, 128, 256), (0, 50, 100, 200, 300), 2e-3

if __name__ == "__main__":
    given = options(__doc__).parse_args()
    shape, steps = (SHAPES["smoke"], STEPS[:1]) if given.smoke else (Shape(256, 8192, 1024), STEPS)
    _, batches = work(shape, seed=0)
    sae, rows = TopK(shape.d_model, shape.latents, K), []
    adam = torch.optim.Adam(sae.parameters(), RATE, fused=True)
    for step in range(steps[-1] + 1):
        x = batches[step % len(batches)]
        loss = sae.objective(x).loss
        if step in steps:
            row: dict[str, Any] = {"step": step, "loss": loss.item()}
            weights, centred = Weights(*(w.detach() for w in sae.weights)), (torch.cat(batches) - sae.b_pre).detach()
            for m in NUMBERS:
                row[f"not accepted of {len(centred)}, m={m}"] = int((~select(centred, weights, K, m)[2]).sum())
            show(row)
            rows.append(row)
        adam.zero_grad()
        loss.backward()
        adam.step()
        sae.normalize_decoder()
    write(given.json, rows)
    print(f"| steps | loss | m = {' | '.join(map(str, NUMBERS))} |", "|---" * (2 + len(NUMBERS)) + "|", sep="\n")  # noqa: T201
    for step, loss, *counts in (row.values() for row in rows):
        print(f"| {step} | {loss:.3f} | {' | '.join(map(str, counts))} |")  # noqa: T201
