"""What SAEs of each library explain after the same tokens: python benchmarks/quality.py --peers FOLDER [--json FILE].

Layer 2 of the shipped LM; the same activations in the same shuffled order, the same width and k, a constant rate after
the same warm-up; otherwise each library's trainer as it comes (peers/trained.py). Every trainer gets every rate and is
shown at its best. `fvu` is of held-out tokens, `dead` the part of latents that fires on none of them.

With --seeds instead: TopK by our step and by plain dense autograd, from the same initial values of each seed.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from measuring import options, show, write
from omegaconf import OmegaConf
from trained import TRAINERS

from bisae.config.settings import SAEKeys
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import EmbeddedModel

# How the text is read: conf/experiment/embedded.yaml.
PASS: dict[str, Any] = {
    "context": 128, "shortest": 8, "lm_batch": 16, "shard_batches": 16, "lm_dtype": "float32", "device": "cpu",
}  # fmt: skip
LATENTS, K, BATCH, WARMUP, LAYER = 1024, 16, 512, 100, 2
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
OURS = {  # name: config overrides
    "topk": [],
    "topk_aux": ["sae.aux_k=64"],
    "short_encoder": [],
    "clipped": [],
    **{name: [f"sae={name}"] for name in ("batch_topk", "jump_relu", "matryoshka", "relu_l1")},
}
ENVIRONMENTS = {"sparsify_adam": "sparsify"}  # where it is not the name
TRAINED = Path(__file__).parent / "peers" / "trained.py"


def node(overrides: list[str]) -> dict[str, Any]:
    """An SAE of conf/sae, without what is not its constructor's."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        settings: Any = OmegaConf.to_container(compose("train", [f"size.k={K}", *overrides]).sae, resolve=True)
    return {key: value for key, value in settings.items() if key not in (*SAEKeys.model_fields, "latents")}


def activations(split: str, tokens: int, folder: Path) -> np.ndarray:
    """Shuffled rows "token d_model", each of norm sqrt(d_model), which is what SAELens and others take best."""
    checkpoint = EmbeddedModel("embedded", str(folder)).checkpoint("final")
    source = LMPass(checkpoint, EmbeddedCorpus("embedded", 0), split, **PASS)
    found: list[torch.Tensor] = []
    while sum(map(len, found)) < tokens and source.tokens(len(found)) is not None:
        found.append(source.activations(len(found), [LAYER])[LAYER].float())
    x = torch.cat(found)
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))][:tokens]
    unit: np.ndarray = torch.nn.functional.normalize(x, dim=1).numpy()
    return unit * np.float32(x.shape[1] ** 0.5)


def trained(python: Path, trainer: str, node: dict[str, Any], rate: float, files: list[Path]) -> dict[str, float]:
    warmup = min(WARMUP, len(np.load(files[0], mmap_mode="r")) // BATCH // 2)
    about = {"latents": LATENTS, "k": K, "batch": BATCH, "rate": rate, "warmup": warmup, "node": node}
    command = [str(python), str(TRAINED), trainer, *map(str, files), json.dumps(about)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{trainer}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--peers", type=Path, help="the folder peers/make.sh made")
    parser.add_argument("--ours", nargs="*", choices=OURS, default=list(OURS))
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    given = parser.parse_args()
    tokens, rates = (20 * BATCH, RATES[1:2]) if given.smoke else (given.tokens // BATCH * BATCH, RATES)
    ours = [
        (name, name if name in TRAINERS else "bisae", Path(sys.executable), node(OURS[name])) for name in given.ours
    ]
    if given.seeds:
        rates = (3e-3,)
        seeded = {seed: node([f"sae.seed={seed}"]) for seed in range(given.seeds)}
        ours = [
            (f"{name}, seed {seed}", trainer, Path(sys.executable), one)
            for seed, one in seeded.items()
            for name, trainer in (("topk", "bisae"), ("dense", "dense"))
        ]
    theirs = [name for name in TRAINERS if given.peers and (given.peers / ENVIRONMENTS.get(name, name)).is_dir()]
    peers: list[tuple[str, str, Path, dict[str, Any]]] = [
        (name, name, given.peers / ENVIRONMENTS.get(name, name) / "bin" / "python", {}) for name in theirs
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "train.npy", Path(folder) / "held_out.npy"]
        for file, split, count in zip(files, ("sae", "validation"), (tokens, min(tokens, 100_000)), strict=True):
            np.save(file, activations(split, count, Path(folder)))
        tokens = len(np.load(files[0], mmap_mode="r"))
        for name, trainer, python, settings in [*ours, *peers]:
            found = [{"rate": rate, **trained(python, trainer, settings, rate, files)} for rate in rates]
            best = min(found, key=lambda one: one["fvu"])
            rows.append({"name": name, "tokens": tokens, "latents": LATENTS, "k": K, **best})
            show(rows[-1])
            write(given.json, rows)


if __name__ == "__main__":
    main()
