"""How right is each label over a range of planted worlds? python benchmarks/planted.py FOLDER [--only base "noise 1"]

Each case is a planted world, an SAE and rules of analysis, by `train.py` and `analyze.py` in FOLDER; docs/planted.md
says what the numbers are. Results go to the --json file after each case; cases in it are not measured again. `--show`
prints those that are there.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir

from bisae.analysis.precision_recall import LEVELS, TRAINED
from bisae.cli.analyze import analyze
from bisae.cli.train import train
from bisae.config.instantiate import instantiate
from bisae.planted.model import PlantedModel
from bisae.runtime.atomic import atomic_file

CONF = str(Path(__file__).resolve().parents[1] / "conf")
RESULTS = Path(__file__).parent / "results" / "planted.json"
LAYER, STEPS = 3, (0, 64, 128, 256, 512, 1024)
SAME_CODES = ("model.noise", "model.d_model", "sae.", "data.")  # what leaves the true codes as they are
ROW = ("level", "label", "rule", "threshold", "items", "true", "found", "right", "f1_null", "best_threshold", "best_f1")
SAE = ("sae.k=3", "sae.latents=256", "data.tokens=250_000", "data.epochs=2", "data.validation_tokens=20_000")
ORACLE = ("model.hook=codes", "sae=oracle", "data.tokens=8192", "data.epochs=1", "data.validation_tokens=8192")
ANALYSIS = ("space=planted", "tokens=100_000", "language=token", "alignment.pairs=corpus", "lineage.tokens=100_000")
QUIET = ("trainer.enable_progress_bar=false", "trainer.accelerator=cpu")

# By name: settings of the world, of the SAE (None: true codes only), and of the analysis.
Case = tuple[list[str], list[str] | None, list[str]]
CASES: dict[str, Case] = {
    "base": ([], [], []),
    "weak second language": (["model.second=[0.05,0.3]"], [], []),
    "rare features": (["corpus.zipf=1.6"], None, []),
    "presence 0.5": (["model.presence=0.5"], None, []),
    "spread 0.9": (["model.spread=0.9"], None, []),
    "loans 0.2": (["corpus.loans=0.2"], None, []),
    "one topic": (["corpus.topics=1"], None, []),
    "80 % of one language": (["model.shares=[0.8,0.2]"], None, []),
    "noise 1": (["model.noise=1"], [], []),
    "d_model 32": (["model.d_model=32"], [], []),
    "share 0.4": ([], [], ["patterns.share=0.4"]),
    "contexts 15": ([], [], ["patterns.contexts=15"]),
    "contexts 200": ([], [], ["patterns.contexts=200"]),
    "k 8": ([], ["sae.k=8"], []),
    "width 512": ([], ["sae.latents=512"], []),
    "noise 0": (["model.noise=0"], [], []),
    "50 000 tokens": ([], ["data.tokens=50_000"], []),
    "all steps": ([], [], []),
}


def composed(command: str, *overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(command, [*overrides, "logger=none"])


def measured(folder: Path, name: str, case: Case) -> dict[str, Any]:
    """The scores of a case at its last step, and how they depend on each threshold there."""
    world, sae, rules = case
    changed = [*world, *(["codes"] if sae is None else sae)]
    runs = folder / "runs" / (re.sub(r"[^a-z0-9.]+", "_", "-".join(changed)) or "base")
    places = [f"runs={runs}", f"cache={folder}/cache"]
    steps = STEPS if name.startswith("all steps") else STEPS[-1:]
    for step in steps:
        lm = [*places, "model=planted", "corpus=planted", *world, f"checkpoint={step}", f"layer={LAYER}", *QUIET]
        if sae is not None:
            train(composed("train", *lm, *SAE, *sae))
        planted: PlantedModel = instantiate(composed("train", *lm).model, "model")
        train(composed("train", *lm, *ORACLE, f"sae.latents={planted.features}"))
    report = folder / "reports" / name.replace(" ", "_")
    analyze(composed("analyze", *places, *ANALYSIS, f"only.step={list(steps)}", f"output={report}", *rules))
    tables = (pd.read_csv(report / f"precision_recall{end}.csv") for end in ("", "_thresholds"))
    found, curves = (table[table["step"] == STEPS[-1]] for table in tables)
    rows = [{name: row[name] for name in ROW} for row in found.to_dict("records")]
    return {"settings": [*changed, *rules], "rows": rows, "curves": dict(thinned(curves))}


def thinned(curves: pd.DataFrame) -> Iterator[tuple[str, dict[str, float]]]:
    """F1 by threshold, where it differs from that at the threshold before; of true codes and of recovered features."""
    curves = curves[curves["level"] != TRAINED]
    f1 = (2 * curves["right"] / (curves["found"] + curves["true"]).clip(lower=1)).round(3)
    for key, curve in curves.assign(f1=f1).groupby(["level", "label", "rule"], sort=False):
        new = curve[curve["f1"] != curve["f1"].shift()]
        yield " ".join(key), {f"{t:.4g}": value for t, value in zip(new["threshold"], new["f1"], strict=True)}


def scores(results: dict[str, Any], level: str) -> Iterator[str]:
    """Precision / recall of each label by each rule, a column a case."""
    tables = {name: [row for row in one["rows"] if row["level"] == level] for name, one in results.items()}
    tables = {name: rows for name, rows in tables.items() if rows}
    labels = dict.fromkeys((row["label"], row["rule"]) for rows in tables.values() for row in rows)
    yield f"| {level} | {' | '.join(tables)} |\n|{'---|' * (len(tables) + 1)}"
    for label in labels:
        cells = []
        for rows in tables.values():
            row = next((row for row in rows if (row["label"], row["rule"]) == label), None)
            shares = (row["right"] / max(row[of], 1) for of in ("found", "true")) if row else ()
            cells.append(" / ".join(f"{share:.2f}" for share in shares))
        yield f"| {', '.join(label)} | {' | '.join(cells)} |"


def thresholds(results: dict[str, Any]) -> Iterator[str]:
    """Mean / least F1 over worlds at the default and at the best threshold, and where the mean is at most 0.01 less."""
    yield "| rule | F1 at the default | best | its F1 | at most 0.01 less |\n|---|---|---|---|---|"
    worlds = {name: one for name, one in results.items() if name[:3] != "all" and not CASES[name][2]}
    rows = [row for one in worlds.values() for row in one["rows"]]
    for (level, *rule), default in {tuple(row[name] for name in ROW[:3]): row["threshold"] for row in rows}.items():
        key = " ".join((level, *rule))
        curves = [
            one["curves"][key]
            for one in worlds.values()
            if key in one["curves"] and not (level == LEVELS[0] and "".join(one["settings"]).startswith(SAME_CODES))
        ]
        if not curves:
            continue
        at = np.unique([float(t) for curve in curves for t in curve] + [default])
        f1 = np.array([[value_at(curve, t) for t in at] for curve in curves])
        mean, here = f1.mean(0), int(np.flatnonzero(at == default)[0])
        best = int(np.lexsort((np.abs(at - default), -mean))[0])
        near = at[mean > mean[best] - 0.01]
        numbers = (
            f"{mean[here]:.3f} / {f1[:, here].min():.3f} | {at[best]:.3g} | {mean[best]:.3f} / {f1[:, best].min():.3f}"
        )
        yield f"| {key} {default:g} | {numbers} | {near.min():.3g} to {near.max():.3g} |"


def value_at(curve: dict[str, float], threshold: float) -> float:
    """F1 at a threshold, from a thinned curve."""
    reached = [value for t, value in curve.items() if float(t) <= threshold + 1e-9]
    return reached[-1] if reached else next(iter(curve.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, default=RESULTS, help="the results, which are added to")
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    for name, case in CASES.items():
        if name not in results and name in (options.only or [name]) and not options.show:
            results[name] = measured(options.folder, name, case)
            with atomic_file(options.json) as temporary:
                temporary.write_text(json.dumps(results) + "\n", encoding="utf-8")
    lines = (*(line for level in LEVELS for line in ("", *scores(results, level))), "", *thresholds(results))
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main()
