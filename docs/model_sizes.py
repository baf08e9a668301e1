"""What an LLM-jp-3 model and its SAEs take: python docs/model_sizes.py

The architectures are built without weights. GB: the LM in bf16; the activations of one layer in bf16; an SAE in fp32
with Adam's two moments. Tokens and latents are the study's.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM

from bisae.grid.lm_shape import HEADS_AND_FFN, LLM_JP_3, VOCABULARY, llama_config

CONF = Path(__file__).parents[1] / "conf"
STUDY = OmegaConf.load(CONF / "experiment" / "paper.yaml").size


class Size(NamedTuple):
    """Parameters of an LM, all and without its two embedding matrices, and of one SAE on it."""

    layers: int
    d_model: int
    parameters: int
    non_embedding: int
    sae: int


def model_size(preset: str, heads: int, ffn: int) -> Size:
    """Build the architecture that the preset `conf/model/<preset>.yaml` describes, on the meta device, and count."""
    expected = OmegaConf.load(CONF / "model" / f"{preset}.yaml")
    config = llama_config(expected.layers, expected.d_model, heads, ffn)
    with torch.device("meta"):
        parameters = LlamaForCausalLM(config).num_parameters()
    d_model, latents = expected.d_model, STUDY.latents
    sae = 2 * latents * d_model + latents + d_model  # encoder and decoder, b_enc, b_pre
    return Size(expected.layers, d_model, parameters, parameters - 2 * VOCABULARY * d_model, sae)


def main() -> None:
    console = Console(width=max(140, Console().width))
    columns = ("layers", "d_model", "parameters", "non-embedding", "LM GB", "a layer's GB", "SAE parameters", "SAE GB")
    table = Table("model", *columns, box=None, header_style="bold")
    for size, dimensions in HEADS_AND_FFN.items():
        preset = LLM_JP_3 + size
        lm = model_size(preset, *dimensions)
        counts = (f"{count:,}" for count in lm[:4])
        layer = f"{2 * STUDY.tokens * lm.d_model / 1e9:.0f}"
        table.add_row(
            preset, *counts, f"{2 * lm.parameters / 1e9:.2f}", layer, f"{lm.sae:,}", f"{12 * lm.sae / 1e9:.2f}"
        )
    console.print(table)
    console.print(f"{STUDY.tokens:,} training tokens, {STUDY.latents:,} latents")


if __name__ == "__main__":
    main()
