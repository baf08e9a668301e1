"""How a step grows with latents, d_model, k and batch: python benchmarks/growth.py [--json FILE --plot FILE].

The autograd form of sae_step.py; one of the four varies, the others stay as in BASE. The plot has the step, and the
product alone, in units of the step at BASE.
"""

from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from measuring import in_turn, options, ratio, show, write
from steps import autograd
from work import Shape, work

from bisae.report.style import PAGE, look, style_of

BASE = {"latents": 4096, "d_model": 256, "k": 32, "batch": 1024}
GRID = {
    "latents": (1024, 2048, 4096, 8192, 16384),
    "d_model": (64, 128, 256, 512, 1024),
    "k": (8, 16, 32, 64, 128),
    "batch": (512, 1024, 2048, 4096, 8192),
}


def measure(varied: str, value: int, rounds: int) -> dict[str, Any]:
    """A row: seconds of a step and of a product."""
    sizes = {**BASE, varied: value}
    directions, batches = work(Shape(sizes["d_model"], sizes["latents"], sizes["batch"]), seed=0)
    product = torch.empty(sizes["batch"], sizes["latents"])
    step, inputs = autograd(directions.clone(), sizes["k"]), cycle(batches)
    works = {
        "step": lambda: step(next(inputs)),
        "product": lambda: torch.mm(next(inputs), directions.T, out=product),
    }
    times = in_turn(works, rounds)
    seconds = {f"{name}_seconds": min(found) for name, found in times.items()}
    return {"varied": varied, **sizes, **seconds, "ratio": ratio(times, "step", "product")}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each size that varies."""
    base = next(row for row in rows if all(row[name] == value for name, value in BASE.items()))
    lines = {"step": "step_seconds", "its encoder product alone": "product_seconds"}
    with look():
        figure = Figure(figsize=(PAGE, 1.9), layout="constrained")
        axes = figure.subplots(1, len(GRID), sharey=True)
        for axis, varied in zip(axes, GRID, strict=True):
            found = [row for row in rows if row["varied"] == varied]
            for line, column in lines.items():
                color, marker = style_of(line, list(lines))
                relative = [row[column] / base["step_seconds"] for row in found]
                axis.plot([row[varied] for row in found], relative, color=color, marker=marker, label=line)
            axis.set(xlabel=varied, xscale="log", yscale="log")
            axis.set_xscale("log", base=2)
        axes[0].set_ylabel("CPU time, of the step\nwhere all panels meet")
        axes[0].legend()
        figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--plot", type=Path, help="a .png")
    given = parser.parse_args()
    grid = {name: (BASE[name],) for name in GRID} if given.smoke else GRID
    found = []
    for varied, values in grid.items():
        for value in values:
            found.append(measure(varied, value, given.rounds))
            show(found[-1])
            write(given.json, found)
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
