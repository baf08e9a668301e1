"""Which tracing finds when a feature is born? python benchmarks/tracing.py FOLDER [--tokens 100000 250000] [--seeds 3]

SAEs of the planted LM at each step, by `train.py` in FOLDER: independent ones, whose features are matched by
co-activation (lineage), and a warm-started ladder, whose features are matched in the same way and also traced by their
index. Of the planted features that the last SAE recovers: how many are said to be born on their true rung of the ladder
or one beside it, on it, too early and too late by two rungs or more; by chance: with true births shuffled over these
features. Means over SAE seeds with Student's 95 % intervals. `tokens` are those of each checkpoint, read once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from bisae.analysis.precision_recall import Items, rungs
from bisae.cells.cell import Cell
from bisae.cells.find import find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.train import train
from bisae.features.codes import Firings, encode
from bisae.features.measures.lineage import appears, coactivation_matches, coactivation_of_same
from bisae.metrics.intervals import t_interval
from bisae.sae import load

STEPS, LAYER, LEAST, READ, SHUFFLES = (0, 64, 128, 256, 512, 1024), 3, 0.2, 40_000, 200
COMMON = (
    *("model=planted", "corpus=planted", f"layer={LAYER}", "sae.k=3", "sae.latents=256", "data.epochs=1"),
    *("data.validation_tokens=8192", "optimizer.warmup=20", f"ladder={list(STEPS)}", "logger=none"),
    *("trainer.enable_progress_bar=false", "trainer.accelerator=cpu"),
)
STARTS = {"independent": "null", "warm": "previous"}


def trained(start: str, tokens: int, seeds: int, folder: Path) -> list[dict[int, Cell]]:
    """The cell of each step, for each seed."""
    found: list[dict[int, Cell]] = [{} for _ in range(seeds)]
    for step in STEPS:
        own = [f"sae.seed={list(range(seeds))}", f"data.tokens={tokens}", f"checkpoint={step}", f"sae.start={start}"]
        with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base="1.3"):
            cfg = compose("train", [*COMMON, *own, f"runs={folder}/runs", f"cache={folder}/cache"])
        for cell in train(cfg):
            found[cell.identity["sae"]["seed"]][step] = cell
    return found


class Text:
    """The same text at each step: activations, and what is planted in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._rows = folder, dict[int, torch.Tensor]()
        self.truth: Any = None

    def firings(self, cell: Cell) -> Firings:
        if cell.step not in self._rows:
            (found,) = find_cells(str(cell.folder), cell.runs)
            recipe = Recipe.of(found, None, None, self.folder / "cache")
            self.truth = recipe.checkpoint.truth  # type: ignore[attr-defined]
            source, parts = recipe.lm_pass("analysis", "cpu"), list[torch.Tensor]()
            while sum(map(len, parts)) < READ and source.tokens(len(parts)) is not None:
                parts.append(source.activations(len(parts), [LAYER])[LAYER])
            self._rows[cell.step] = torch.cat(parts)[:READ]
        return encode(load(cell.folder), 0, self._rows[cell.step]).firings


def births(cells: dict[int, Cell], text: Text) -> dict[str, list[float]]:
    """By way of tracing: recovered features; shares within a rung, on it, too early, too late; the first by chance."""
    each = [text.firings(cells[step]) for step in STEPS]
    final, before = each[-1], np.array(STEPS[:-1])
    matched = np.stack([coactivation_matches(final, one, READ)[1] for one in each[:-1]])
    traced = np.stack([coactivation_of_same(one, other, READ) for one, other in zip(each[:-1], each[1:], strict=True)])
    directions = torch.nn.functional.normalize(load(cells[STEPS[-1]].folder).W_dec.detach(), dim=1).numpy()
    there = np.stack([text.truth.there(step, LAYER) for step in STEPS])
    items = Items.of(text.truth.directions @ directions.T, there[-1], np.diff(final.offsets) > 0)
    true = items.of_features(rungs(there))[items.both]
    found = {}
    for way, coactivation in (("matched", matched), ("traced", traced)):
        rung = np.searchsorted(before, appears(before, coactivation, LEAST)).astype(float)
        error = items.of_latents(rung)[items.both] - true
        rng = np.random.default_rng(0)
        chance = [
            np.sum(np.abs(error + true - rng.permutation(true)) <= 1) / max(len(true), 1) for _ in range(SHUFFLES)
        ]
        shares = [np.abs(error) <= 1, error == 0, error < -1, error > 1]
        known = [*(float(share.mean()) for share in shares), float(np.mean(chance))] if len(error) else [np.nan] * 5
        found[way] = [float(len(error)), *known]
    return found


def shown(values: Sequence[float]) -> str:
    low, high = t_interval(np.array(values))
    return f"{np.mean(values):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, nargs="+", default=[100_000, 250_000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = Text(options.folder)
    sys.stdout.write("| tokens | SAEs | births by | recovered | within a rung | on it | early | late | by chance |\n")
    for tokens in options.tokens:
        for name, start in STARTS.items():
            ladders = trained(start, tokens, options.seeds, options.folder)
            of_seeds = [births(cells, text) for cells in ladders]
            for way in ("matched", "traced") if name == "warm" else ("matched",):
                numbers, *shares = zip(*(one[way] for one in of_seeds), strict=True)
                cells = " | ".join(shown(values) for values in shares[:-1])
                line = f"| {tokens} | {name} | {way} | {np.mean(numbers):.0f} | {cells} | {np.mean(shares[-1]):.2f} |\n"
                sys.stdout.write(line)
                sys.stdout.flush()


if __name__ == "__main__":
    main()
