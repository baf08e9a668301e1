"""Pack finished ladders into the package: int8 weights, their checksums and perplexities.

    python -m bisae.pretrain.pack pretrained/embedded pretrained/embedded_control --to bisae/embedded [--steps 0 512]

Step 0 of two ladders with the same seed is the same LM: equal files are stored once and named by both ladders.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from bisae.corpus.pairs import read_pairs
from bisae.lm.int8 import pack_file, unpack_file
from bisae.lm.losses import token_loss
from bisae.lm.tokenizer import load_tokenizer
from bisae.pretrain.text import validation_documents
from bisae.runtime.atomic import write_json


def _told(file: Path) -> Any:
    """What a file says of the tokenizer: without the settings of loading that transformers adds to its config."""
    about = json.loads(file.read_text(encoding="utf-8"))
    config = file.name == "tokenizer_config.json"
    return {name: value for name, value in about.items() if name.endswith("_token")} if config else about


def pack_ladder(ladder: Path, target: Path, steps: Collection[int] = ()) -> None:
    """Write `<target>/lm/<ladder>/step*.safetensors` and `ladder.json`; the tokenizer goes to `<target>/tokenizer`.

    `steps`: the checkpoints that are packed; none: all. The recipe that is packed names these only.
    """
    recipe = json.loads((ladder / "recipe.json").read_text())
    if missing := sorted(set(steps) - set(recipe["checkpoints"])):
        raise ValueError(f"{ladder} has no checkpoints {missing}, only {recipe['checkpoints']}")
    recipe["checkpoints"] = [step for step in recipe["checkpoints"] if not steps or step in steps]
    folder = target / "lm" / ladder.name
    folder.mkdir(parents=True)
    rungs = [ladder / f"step{step:07d}" for step in sorted(recipe["checkpoints"])]
    tokenizer = load_tokenizer(rungs[0], False, None)
    for file in (rungs[0] / "tokenizer.json", rungs[0] / "tokenizer_config.json"):
        shared = target / "tokenizer" / file.name
        shared.parent.mkdir(exist_ok=True)
        if not shared.exists():
            shutil.copy(file, shared)
        elif _told(shared) != _told(file):
            raise ValueError(f"{file} differs from {shared}: the shipped ladders share one tokenizer")
    languages, pairs = read_pairs(target / "corpus" / "validation.tsv.xz")
    validation = validation_documents(languages, pairs, tokenizer, recipe["schedule"]["context"])
    known = {hashlib.sha256(f.read_bytes()).hexdigest(): f for f in sorted(target.glob("lm/*/*.safetensors"))}
    checkpoints = {}
    for rung in rungs:
        told = json.loads((rung / "recipe.json").read_text())
        file = folder / f"{rung.name}.safetensors"
        pack_file(rung / "model.safetensors", file)
        checksum = hashlib.sha256(file.read_bytes()).hexdigest()
        if checksum in known:
            file.unlink()
            file = known[checksum]
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy(rung / "config.json", scratch)
            unpack_file(file, Path(scratch) / "model.safetensors")
            lm = AutoModelForCausalLM.from_pretrained(scratch, trust_remote_code=False)
        perplexity = {name: round(token_loss(lm, rows).perplexity, 3) for name, rows in validation.items()}
        checkpoints[str(told["step"])] = {
            "file": f"{file.parent.name}/{file.name}",
            "sha256": checksum,
            "tokens_seen": told["tokens_seen"],
            "perplexity": perplexity,
            "perplexity_before_int8": {name: round(value, 3) for name, value in told["perplexity"].items()},
        }
    config = json.loads((rungs[0] / "config.json").read_text())
    about = {"recipe": recipe, "config": config, "checkpoints": checkpoints}
    write_json(folder / "ladder.json", about | {"held_out": json.loads((ladder / "held_out.json").read_text())})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Pack finished ladders into the package.")
    parser.add_argument("ladders", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, required=True, help="e.g. bisae/embedded")
    parser.add_argument("--steps", type=int, nargs="+", default=[], help="checkpoints to pack; without it, all")
    arguments = parser.parse_args()
    for each in arguments.ladders:
        pack_ladder(each, arguments.to, arguments.steps)
