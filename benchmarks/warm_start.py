"""Does an SAE train faster from that of the checkpoint before? python benchmarks/warm_start.py FOLDER [--seeds 3]

TopK SAEs at layer 2 of the shipped ladder, by `train.py` in FOLDER: from scratch, each from the checkpoint before
(SAE-Track), and, as a control, each from the checkpoint after (the ladder reversed). The first table has the FVU on
held-out text after 10, 30 and 100 % of the tokens. The second has lineage between neighbouring checkpoints: the share
of the features that fire at the earlier one whose best match at the later one co-activates at least 0.2, as analyze.py
counts it. Both are means over checkpoints, with Student's 95 % intervals over seeds. What is trained already is not
trained again, so a run that was stopped goes on.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from bisae.cells.cell import Cell
from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.train import train
from bisae.features.codes import encode
from bisae.features.measures.lineage import coactivation_matches
from bisae.metrics.intervals import t_interval
from bisae.sae import load

STEPS = (0, 64, 256, 512, 1024, 2048)
TOKENS, LAYER = 102_400, 2
PARTS = {"10 %": 10_240, "30 %": 30_720, "100 %": None}  # of the tokens: the snapshot
LEAST, LINEAGE_TOKENS = 0.2, 50_000
COMMON = (
    *(f"layer={LAYER}", f"data.tokens={TOKENS}", "data.epochs=1", "data.validation_tokens=20000"),
    *("sae.latents=512", "sae.k=16", "optimizer.warmup=20", "snapshots=[10240,30720]"),
    *("logger=none", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"),
)
WAYS = {"from scratch": (STEPS, "null"), "from before": (STEPS, "previous"), "from after": (STEPS[::-1], "previous")}
Cells = dict[int, dict[str, Cell]]  # by step and share of the tokens


def trained(way: str, seeds: int, folder: Path) -> list[Cells]:
    """The cells of each seed."""
    steps, start = WAYS[way]
    found: list[Cells] = [{} for _ in range(seeds)]
    own = [f"sae.seed={list(range(seeds))}", f"runs={folder}/runs", f"cache={folder}/cache", f"ladder={list(steps)}"]
    for step in steps:
        with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base="1.3"):
            cfg = compose("train", [*COMMON, *own, f"checkpoint={step}", f"sae.start={start}"])
        for cell in train(cfg):
            parts = {
                share: replace(cell, identity={**cell.identity, "snapshot": tokens}) if tokens else cell
                for share, tokens in PARTS.items()
            }
            found[cell.identity["sae"]["seed"]][step] = parts
    return found


def fvu(cell: Cell) -> float:
    value: float = cell.read()["metrics"]["val/fvu"]
    return value


class Matches:
    """Co-activation of the final SAEs of neighbouring checkpoints, on the same text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[int, torch.Tensor] = {}

    def activations(self, cell: Cell) -> torch.Tensor:
        if cell.step not in self._rows:
            (found,) = find_cells(str(cell.folder), cell.runs)
            source = Recipe.of(found, None, None, self.folder / "cache").lm_pass("analysis", "cpu")
            parts: list[torch.Tensor] = []
            while sum(map(len, parts)) < LINEAGE_TOKENS and source.tokens(len(parts)) is not None:
                parts.append(source.activations(len(parts), [LAYER])[LAYER])
            self._rows[cell.step] = torch.cat(parts)[:LINEAGE_TOKENS]
        return self._rows[cell.step]

    def followed(self, here: Cell, there: Cell) -> float:
        """The share of the features of `here` that fire whose best match in `there` is the same feature."""
        one, other = (encode(load(cell.folder), 0, self.activations(cell)).firings for cell in (here, there))
        _, overlap = coactivation_matches(one, other, LINEAGE_TOKENS)
        return float((overlap[np.diff(one.offsets) > 0] >= LEAST).mean())


def shown(values: Sequence[float]) -> str:
    low, high = t_interval(np.array(values))
    return f"{np.mean(values):.4f} [{low:.4f}, {high:.4f}]"


def lines(cells: dict[str, list[Cells]], folder: Path) -> Iterator[str]:
    """The tables: a line a way of starting, then the means at each step or pair of steps."""
    yield f"FVU, mean over the steps but {STEPS[0]} and {STEPS[-1]}"
    for share in PARTS:
        for way, of_seeds in cells.items():
            means = [float(np.mean([fvu(one[step][share]) for step in STEPS[1:-1]])) for one in of_seeds]
            at = [f"{np.mean([fvu(one[step][share]) for one in of_seeds]):.4f}" for step in STEPS]
            yield f"{share:5} {way:12} {shown(means)}   at each step: {' '.join(at)}"
    matches = Matches(folder)
    yield f"features found again at the next step, co-activation of at least {LEAST} on {LINEAGE_TOKENS} tokens"
    for way, of_seeds in cells.items():
        pairs = [[matches.followed(one[a]["100 %"], one[b]["100 %"]) for a, b in pairwise(STEPS)] for one in of_seeds]
        at = [f"{share:.3f}" for share in np.mean(pairs, axis=0)]
        yield f"      {way:12} {shown([float(np.mean(one)) for one in pairs])}   at each pair: {' '.join(at)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = {way: trained(way, options.seeds, options.folder) for way in WAYS}
    for line in lines(cells, options.folder):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
