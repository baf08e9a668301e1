"""How right is each label over a range of planted worlds? python benchmarks/planted.py FOLDER [--only base "noise 1"]

Each case is a planted world, an SAE and rules of analysis, by `train.py` and `analyze.py` in FOLDER; docs/planted.md
says what the numbers are. Results go to the --json file after each case; cases in it are not measured again. `--show`
prints those that are there.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra import compose, initialize_config_dir

from bisae.cli.analyze import analyze
from bisae.cli.train import train
from bisae.planted.model import PlantedModel
from bisae.runtime.atomic import write_json

CONF = str(Path(__file__).resolve().parents[1] / "conf")
RESULTS = Path(__file__).parent / "results" / "planted.json"
LAYER, STEPS = 3, (0, 64, 128, 256, 512, 1024)
FOLLOWED = ("base", "noise 0.5", "d_model 32")  # over all steps; the others at the last one only
SAE = ("sae.k=3", "sae.latents=256", "data.tokens=250_000", "data.epochs=2", "data.validation_tokens=20_000")
ORACLE = ("model.hook=codes", "sae=oracle", "data.tokens=8192", "data.epochs=1", "data.validation_tokens=8192")
ANALYSIS = ("space=planted", "tokens=100_000", "alignment.pairs=planted", "lineage.tokens=100_000")
QUIET = ("trainer.enable_progress_bar=false", "trainer.accelerator=cpu")

# By name: settings of the world, of the SAE, and of the analysis.
Case = tuple[list[str], list[str], list[str]]
WORLDS = {
    "base": [],
    "noise 0": ["model.noise=0"],
    "noise 0.5": ["model.noise=0.5"],
    "noise 1": ["model.noise=1"],
    "d_model 32": ["model.d_model=32"],
    "d_model 256": ["model.d_model=256"],
    "weak second language": ["model.second=[0.05,0.3]"],
    "one language has 80 %": ["model.shares=[0.8,0.2]"],
    "rare features": ["corpus.zipf=1.6"],
    "presence 0.5": ["model.presence=0.5"],
    "spread 0.9": ["model.spread=0.9"],
    "loans 0.2": ["corpus.loans=0.2"],
    "six forms": ["corpus.lexicon.forms=6"],
}
SAES = {
    "k 1": ["sae.k=1"],
    "k 8": ["sae.k=8"],
    "width 128": ["sae.latents=128"],
    "width 512": ["sae.latents=512"],
    "50 000 tokens": ["data.tokens=50_000"],
}
RULES = {
    "tokens 20 000": ["tokens=20_000"],
    "share 0.5": ["patterns.share=0.5"],
    "share 0.9": ["patterns.share=0.9"],
    "contexts 20": ["patterns.contexts=20"],
    "contexts 200": ["patterns.contexts=200"],
    "patterns top": ["patterns=top"],
    "patterns quantile": ["patterns=quantile"],
    "quantile 0.95": ["monosemanticity.quantile=0.95"],
    "quantile 0.999": ["monosemanticity.quantile=0.999", "monosemanticity.shuffles=1000"],
    "level 0.01": ["alignment.level=0.01"],
    "level 0.2": ["alignment.level=0.2"],
}


def cases() -> Iterator[tuple[str, Case]]:
    yield from ((name, (world, [], [])) for name, world in WORLDS.items())
    yield from ((name, ([], sae, [])) for name, sae in SAES.items())
    yield from ((name, ([], [], rules)) for name, rules in RULES.items())


def composed(command: str, *overrides: str) -> Any:
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(command, [*overrides, "logger=none"])


def measured(folder: Path, name: str, case: Case) -> dict[str, Any]:
    """What the report of a case says of its last step, and how F1 depends on each threshold there."""
    world, sae, rules = case
    runs = folder / "runs" / ("-".join([*world, *sae]) or "base")
    places = [f"runs={runs}", f"cache={folder}/cache"]
    steps = STEPS if name in FOLLOWED else STEPS[-1:]
    for step in steps:
        lm = [*places, "model=planted", "corpus=planted", *world, f"checkpoint={step}", f"layer={LAYER}", *QUIET]
        train(composed("train", *lm, *SAE, *sae))
        planted = PlantedModel(**{key: value for key, value in composed("train", *lm).model.items() if key[0] != "_"})
        train(composed("train", *lm, *ORACLE, f"sae.latents={planted.truth().features}"))
    report = folder / "reports" / name
    analyze(composed("analyze", *places, *ANALYSIS, f"only.step={list(steps)}", f"output={report}", *rules))
    found, curves = (pd.read_csv(report / f"precision_recall{end}.csv") for end in ("", "_thresholds"))
    keys = ["level", "label", "rule", "threshold"]
    curves = curves[curves["step"] == STEPS[-1]]
    both = curves["found"] + curves["true"]
    f1 = (2 * curves["right"] / both.clip(lower=1)).round(4)
    last = found[found["step"] == STEPS[-1]].drop(columns=["model", "sae", "seed", "hash"])
    return {
        "settings": [*world, *sae, *rules],
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
    for name, case in cases():
        if name not in results and name in (options.only or [name]) and not options.show:
            results[name] = measured(options.folder, name, case)
            write_json(options.json, results)
    sys.stdout.writelines(f"{line}\n" for line in shown(results))


if __name__ == "__main__":
    main()
