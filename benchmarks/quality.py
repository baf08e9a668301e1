"""What SAEs of each library explain after the same tokens: python benchmarks/quality.py --peers FOLDER [--json FILE].

The shipped LM; the same activations in the same shuffled order, the same width, k and warm-up, several seeds; each
library's trainer as it comes (peers/trained.py) at the best of its rates, by the first seed; of ours only rates with
less than 3 % dead latents count. `fvu` is of held-out
tokens, with the standard deviation over seeds; `dead` the part of latents that fires on none of them; `again` the part
of latents that the SAE of another seed has too: decoder cosine of at least 0.7, matched one to one.

    --cells default         what python train.py trains: latents, k, tokens and epochs of conf/experiment/embedded.yaml
    --cells wide            1024 latents, k = 16, one epoch
    --cells layer           as default, of layer 3
    --cells checkpoint      as default, of step 512
    --trainers default      ours, as python train.py; study: with sae/recipe=study; or a peer
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from measuring import options, show, write
from omegaconf import OmegaConf

from bisae.config.settings import SAEKeys
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.features.measures.stability import one_to_one
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import EmbeddedModel

FOUND, DEAD = 0.7, 0.03
RATES = {"default": (7e-3,), "others": (3e-3, 1e-2)}
ARCHITECTURES = ("batch_topk", "jump_relu", "matryoshka", "relu_l1")
OURS: dict[str, list[str]] = {  # name: config overrides
    "default": [],
    "without_aux": ["sae.aux_k=0"],
    "dense": [],
    "study": ["sae/recipe=study"],
    **{name: [f"sae={name}"] for name in ARCHITECTURES},
}
ENVIRONMENTS = {"sparsify_adam": "sparsify", "dictionary_learning_decay": "dictionary_learning"}  # if not the name
PEERS = ("dictionary_learning", "dictionary_learning_decay", "sparsify_adam", "sae_lens", "sparsify")
TRAINED = Path(__file__).parent / "peers" / "trained.py"


@dataclass(frozen=True)
class Task:
    """What every trainer is given."""

    checkpoint: int | str
    layer: int
    latents: int
    k: int
    tokens: int
    epochs: int


def config(overrides: list[str]) -> dict[str, Any]:
    """The config of python train.py."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        found: Any = OmegaConf.to_container(compose("train", overrides), resolve=True)
    return dict(found)


def tasks() -> dict[str, Task]:
    size = config([])["size"]
    default = Task("final", size["layer"], size["latents"], size["k"], size["tokens"], size["epochs"])
    return {
        "default": default,
        "wide": replace(default, latents=1024, k=16, epochs=1),
        "layer": replace(default, layer=3),
        "checkpoint": replace(default, checkpoint=512),
    }


def recipe(name: str, task: Task, keys: list[str]) -> dict[str, Any]:
    """What `trained.py` is told of a trainer, but for the rate and what it is given of the task."""
    if name == "dictionary_learning_decay":
        return {"decay": config([])["size"]["decay"]}
    if name not in OURS:
        return {}
    found = config([f"size.k={task.k}", *OURS[name], *keys])
    node = {key: value for key, value in found["sae"].items() if key not in (*SAEKeys.model_fields, "latents", "seed")}
    of = {"beta2": found["size"]["beta2"], "decay": found["size"]["decay"], "dead_after": found["sae"]["dead_after"]}
    return {**of, "node": node}


def activations(task: Task, split: str, tokens: int, folder: Path) -> Path:
    """A file in `folder`, made if it is not there, of so many tokens of a shuffled split, "token d_model".

    Each has norm sqrt(d_model), which is what SAELens and others take best.
    """
    path = folder / f"{task.checkpoint}-{task.layer}-{split}-{tokens}.npy"
    if not path.exists():
        reading = config([])["activations"]["pass"] | {"device": "cpu"}
        checkpoint = EmbeddedModel("embedded", str(folder)).checkpoint(task.checkpoint)
        source = LMPass(checkpoint, EmbeddedCorpus("embedded", 0), split, **reading)
        found: list[torch.Tensor] = []
        while source.tokens(len(found)) is not None:
            found.append(source.activations(len(found), [task.layer])[task.layer].float())
        x = torch.cat(found)
        x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))][:tokens]
        np.save(path, torch.nn.functional.normalize(x, dim=1) * x.shape[1] ** 0.5)
    return path


def trained(python: Path, name: str, files: list[Path], settings: dict[str, Any]) -> dict[str, float]:
    trainer = name.removesuffix("_decay") if name in PEERS else "dense" if name == "dense" else "bisae"
    command = [str(python), str(TRAINED), trainer, *map(str, files), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def found_again(decoders: list[torch.Tensor]) -> float:
    """The mean over pairs of SAEs of the part of latents whose match has a cosine of at least `FOUND`."""
    shares = [float((one_to_one(a, b)[1] >= FOUND).mean()) for a, b in combinations(decoders, 2)]
    return float(np.mean(shares)) if shares else float("nan")


def row(
    name: str, python: Path, files: list[Path], settings: dict[str, Any], rates: Sequence[float], seeds: int
) -> dict[str, Any]:
    """The seeds of a trainer at the rate that is best for the first."""
    by_rate: dict[float, dict[str, float]] = {}
    decoders: dict[float, torch.Tensor] = {}
    for rate in rates:
        by_rate[rate] = trained(python, name, files, {**settings, "seed": 0, "rate": rate})
        decoders[rate] = torch.from_numpy(np.load(files[-1]))
    allowed = [rate for rate in by_rate if name not in OURS or by_rate[rate]["dead"] < DEAD] or list(by_rate)
    best = min(allowed, key=lambda rate: by_rate[rate]["fvu"])
    runs, kept = [by_rate[best]], [decoders[best]]
    for seed in range(1, seeds):
        runs.append(trained(python, name, files, {**settings, "seed": seed, "rate": best}))
        kept.append(torch.from_numpy(np.load(files[-1])))
    fvu = [run["fvu"] for run in runs]
    means = {key: float(np.mean([run[key] for run in runs])) for key in ("dead", "l0", "cpu_s")}
    spread = float(np.std(fvu, ddof=1)) if len(fvu) > 1 else float("nan")
    shown = {"rate": best, "fvu": float(np.mean(fvu)), "fvu_sd": spread, "again": found_again(kept), **means}
    return {"name": name, **shown, "fvus": fvu, "fvu_by_rate": {str(rate): one["fvu"] for rate, one in by_rate.items()}}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peers", type=Path, help="the folder peers/make.sh made")
    parser.add_argument("--cells", nargs="*", choices=tasks(), default=list(tasks()))
    parser.add_argument("--trainers", nargs="*", choices=(*OURS, *PEERS), default=["default", "study", *PEERS[:4]])
    parser.add_argument("--rates", nargs="*", type=float, help="in place of those of each trainer, RATES")
    parser.add_argument("--activations", type=Path, help="a folder that keeps them")
    parser.add_argument("--set", nargs="*", default=[], help="keys of train.py for ours: size.beta2=0.99 size.decay=1")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.smoke:
        given.rates, given.seeds, given.cells = [3e-3], 2, given.cells[:1]
    size = config([])["size"]
    rows = json.loads(given.json.read_text())["rows"] if given.json and given.json.exists() else []
    for cell in given.cells:
        task = tasks()[cell]
        tokens, held_out = (20 * size["batch"],) * 2 if given.smoke else (task.tokens, size["validation_tokens"])
        tokens -= tokens % size["batch"]
        with tempfile.TemporaryDirectory() as folder:
            kept = given.activations or Path(folder)
            files = [activations(task, *which, kept) for which in (("sae", tokens), ("validation", held_out))]
            steps = task.epochs * tokens // size["batch"]
            about = {"latents": task.latents, "k": task.k, "batch": size["batch"], "epochs": task.epochs}
            about["warmup"] = min(size["warmup"], steps // 4)
            for name in given.trainers:
                python = Path(sys.executable)
                if name in PEERS:
                    if not given.peers:
                        continue
                    python = given.peers / ENVIRONMENTS.get(name, name) / "bin" / "python"
                rates = given.rates or RATES.get(name, RATES["others"])
                settings = {**about, **recipe(name, task, given.set)}
                found = row(name, python, [*files, Path(folder) / "decoder.npy"], settings, rates, given.seeds)
                rows = [one for one in rows if (one["cell"], one["name"]) != (cell, name)]
                rows.append({"cell": cell, **found, **about, "tokens": tokens})
                show({key: value for key, value in rows[-1].items() if key not in about and key[:4] != "fvu_"})
                write(given.json, rows)


if __name__ == "__main__":
    main()
