"""Caching all layers, beside the LM's own forward: python benchmarks/caching.py [--json FILE].

`caching` is `ActivationCache.prepare` of cut text into an empty folder, `text` reading and cutting it, `pass` the LM
with all layers kept and nothing written, `forward` the backbone alone, without LM head, stopped at the same layer, on
the same batches. The thread that writes counts in full, though a second core would do its work meanwhile.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from measuring import in_turn, options, ratio, show, write
from torch import Tensor

from bisae.activations.cache import ActivationCache
from bisae.corpus.embedded import EmbeddedCorpus
from bisae.lm.lm_pass import LMPass
from bisae.lm.model import Checkpoint, EmbeddedModel
from bisae.lm.residual import ResidualReader

# How the text is read, but for the size of shards: conf/experiment/embedded.yaml.
PASS = {"context": 128, "shortest": 8, "lm_batch": 16, "lm_dtype": "float32", "device": "cpu"}


def random_lm(like: Checkpoint, d_model: int, layers: int, folder: Path) -> Checkpoint:
    """A Llama with random weights and the tokenizer of another checkpoint."""
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(like.folder)
    config.update({"hidden_size": d_model, "intermediate_size": 4 * d_model, "num_hidden_layers": layers})
    config.update({"num_attention_heads": d_model // 64, "num_key_value_heads": d_model // 64, "head_dim": 64})
    LlamaForCausalLM(config).save_pretrained(folder)
    for file in like.folder.glob("token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return replace(like, folder=folder, weights=f"random-{d_model}", d_model=d_model, layers=layers)


def measure(name: str, checkpoint: Checkpoint, rounds: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A row: seconds of each part a thousand tokens, and ratios to `forward`."""
    layers = list(range(1, checkpoint.layers + 1))
    batches: list[Tensor] = []
    read = ResidualReader.read

    def recorded(reader: ResidualReader, ids: Tensor) -> dict[int, Tensor]:
        batches.append(ids)
        return read(reader, ids)

    def source_of_text() -> LMPass:
        return LMPass(checkpoint, EmbeddedCorpus("embedded", 0), "sae", **settings)

    source = source_of_text()
    first_shard = source.tokens(0)
    assert first_shard
    tokens = first_shard.tokens + 1  # two shards: the first is written during the second's pass
    with tempfile.TemporaryDirectory() as folder:
        first = ActivationCache(Path(folder), disk_gib=40, evict=False, verify=False)
        with patch.object(ResidualReader, "read", recorded):
            held = first.prepare(source, layers, tokens)
    shards = len(held.values[1])
    backbone = ResidualReader(checkpoint, layers[-1:], getattr(torch, settings["lm_dtype"]), torch.device("cpu")).model

    def caching() -> None:
        with tempfile.TemporaryDirectory() as folder:
            ActivationCache(Path(folder), disk_gib=40, evict=False, verify=False).prepare(source, layers, tokens)

    def passed() -> None:
        for shard in range(shards):
            source.activations(shard, layers)

    @torch.no_grad()
    def forward() -> None:
        for ids in batches:
            backbone(input_ids=ids, use_cache=False)

    works = {"caching": caching, "pass": passed, "forward": forward}
    cpu = in_turn(works, rounds)
    unread = source_of_text()
    unread.tokenizer  # noqa: B018
    start = time.process_time()
    for shard in range(shards):
        unread.tokens(shard)
    text = time.process_time() - start
    return {
        "name": name,
        "d_model": checkpoint.d_model,
        "layers": len(layers),
        "tokens": held.tokens,
        "forward_seconds": min(cpu["forward"]),
        "caching_of_forward": ratio(cpu, "caching", "forward"),
        "pass_of_forward": ratio(cpu, "pass", "forward"),
        "text_of_forward": text / min(cpu["forward"]),
    }


def main() -> None:
    parser = options(__doc__)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        shipped = EmbeddedModel("embedded", folder).checkpoint("final")
        works: dict[str, tuple[Checkpoint, int]] = {"embedded": (shipped, 2 if given.smoke else 16)}
        if not given.smoke:
            works["random"] = random_lm(shipped, 512, 4, Path(folder) / "random"), 1  # short turns: the machine changes
        for name, (lm, shard_batches) in works.items():
            found.append(measure(name, lm, given.rounds, {**PASS, "shard_batches": shard_batches}))
            show(found[-1])
            write(given.json, found)


if __name__ == "__main__":
    main()
