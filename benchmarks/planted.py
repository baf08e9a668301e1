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

import pandas as pd
import torch
from hydra import compose, initialize_config_dir

from bisae.cli.analyze import analyze
from bisae.cli.train import train
from bisae.config.instantiate import instantiate
from bisae.planted.model import PlantedModel
from bisae.runtime.atomic import write_json

CONF = str(Path(__file__).resolve().parents[1] / "conf")
RESULTS = Path(__file__).parent / "results" / "planted.json"
LAYER, STEPS = 3, (0, 64, 128, 256, 512, 1024)
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
    "tokens 20 000": ([], [], ["tokens=20_000"]),
    "share 0.4": ([], [], ["patterns.share=0.4"]),
    "share 0.9": ([], [], ["patterns.share=0.9"]),
    "contexts 15": ([], [], ["patterns.contexts=15"]),
    "contexts 200": ([], [], ["patterns.contexts=200"]),
    "patterns top": ([], [], ["patterns=top"]),
    "k 8": ([], ["sae.k=8"], []),
    "width 512": ([], ["sae.latents=512"], []),
    "noise 0": (["model.noise=0"], [], []),
    "50 000 tokens": ([], ["data.tokens=50_000"], []),
    "language script": ([], [], ["language=script"]),
    "quantile 0.95": ([], [], ["monosemanticity.quantile=0.95"]),
    "level 0.2": ([], [], ["alignment.level=0.2", "cross.level=0.2"]),
    "all steps": ([], [], []),
    "all steps, noise 1": (["model.noise=1"], [], []),
}


def composed(command: str, *overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(command, [*overrides, "logger=none"])


def measured(folder: Path, name: str, case: Case) -> dict[str, Any]:
    """What the report of a case says of its last step, and how F1 depends on each threshold there."""
    world, sae, rules = case
    runs = (
        folder
        / "runs"
        / (re.sub(r"[^a-z0-9.]+", "_", "-".join([*world, *(["codes"] if sae is None else sae)])) or "base")
    )
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
    found, curves = (pd.read_csv(report / f"precision_recall{end}.csv") for end in ("", "_thresholds"))
    keys = ["level", "label", "rule", "threshold"]
    curves = curves[curves["step"] == STEPS[-1]]
    both = curves["found"] + curves["true"]
    f1 = (2 * curves["right"] / both.clip(lower=1)).round(4)
    last = found[found["step"] == STEPS[-1]].drop(columns=["model", "sae", "seed", "hash"])
    return {
        "settings": [*world, *(sae or []), *rules],
        "rows": json.loads(last.to_json(orient="records", double_precision=6)),
        "curves": {
            " ".join(key): dict(zip(curve["threshold"].round(4).astype(str), curve["f1"], strict=True))
            for key, curve in curves[keys].assign(f1=f1).groupby(keys[:3], sort=False)
        },
    }


def shown(results: dict[str, Any]) -> Iterator[str]:
    """A line a case, level, label and rule."""
    for name, result in results.items():
        for row in result["rows"]:
            cells = [
                row["level"],
                row["label"],
                row["rule"],
                *(row[key] for key in ("precision", "recall", "f1", "f1_null")),
            ]
            best = row["best_threshold"], row["best_f1"]
            texts = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in (*cells, *best))
            yield "  ".join([name, *texts])


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
            write_json(options.json, results)
    sys.stdout.writelines(f"{line}\n" for line in shown(results))


if __name__ == "__main__":
    main()
