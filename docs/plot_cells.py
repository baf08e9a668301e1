"""Plot finished cells: python docs/plot_cells.py runs docs/cells.png

FVU and share of dead latents over the LM's training, one line a layer; markers and line styles tell them apart in grey.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from bisae.cells.find import find_cells

STYLES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":")]
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]  # Okabe and Ito: told apart by every kind of colour vision


def plot(where: str, picture: Path) -> None:
    """Plot the cells that `where` names, of one model and one a step and layer, into the file `picture`."""
    cells = find_cells(where, Path("runs"))
    if len({(cell.step, cell.layer) for cell in cells}) < len(cells) or len({cell.model for cell in cells}) > 1:
        raise SystemExit(f"{where}: several models, or cells a step and layer; name fewer: 'runs/embedded/*/*/topk-*'")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for metric, title, axis in zip(("fvu", "dead"), ("FVU", "share of dead latents"), axes, strict=True):
        for layer in sorted({cell.layer for cell in cells}):
            marker, line = STYLES[layer % 4]
            points = [(cell.step, cell.metrics[f"val/{metric}"]) for cell in cells if cell.layer == layer]
            style = {"marker": marker, "ls": line, "color": COLOURS[layer % 4], "label": f"layer {layer}"}
            axis.plot(*zip(*points, strict=True), **style)
        axis.set_xscale("symlog", linthresh=16)
        axis.set(title=title, xlabel="LM training step", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(picture, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Plot the cells of one model.")
    parser.add_argument("cells", help="a folder above them, or a glob")
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    plot(arguments.cells, arguments.picture)
