"""The shape of an LM, known without its weights and without network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bisae.lm.model import EMBEDDED
from bisae.lm.step_names import named
from bisae.runtime.errors import Refused

VOCABULARY = 99_584  # of LLM-jp-3
# Heads and width of the feed-forward part, by the models' cards; depth and d_model are in conf/model.
HEADS_AND_FFN = {"150m": (8, 2048), "440m": (8, 3584), "980m": (8, 5376), "1.8b": (16, 7168), "3.7b": (24, 8192)}
LLM_JP_3 = "llm_jp_3_"


@dataclass(frozen=True)
class LMShape:
    """The shape of an LM.

    Attributes:
        block: parameters of one decoder block.
        embedding: parameters of the input embeddings.
        final: the last step of pre-training, None if unknown.
        config: of transformers.
    """

    layers: int
    d_model: int
    block: int
    embedding: int
    final: int | None
    config: Any  # transformers' configuration

    def parameters(self, deepest: int) -> int:
        """Parameters of the part of the LM that a pass down to layer `deepest` loads and runs."""
        return self.embedding + max(1, deepest) * self.block

    def flops(self, deepest: int, context: int) -> int:
        """Floating-point operations for each token of a sequence of `context` tokens, down to layer `deepest`."""
        return max(1, deepest) * (2 * self.block + 4 * self.d_model * context)

    @classmethod
    def of(cls, model: Mapping[str, Any], step: object) -> "LMShape":
        """The shape of a model's config at `step`; Refused if no preset, shipped LM or local folder gives it."""
        final = model.get("final_step")
        if "lexicon" in model:
            raise Refused("name", model["name"], "is planted: it has no weights to plan for; train.py reads it at once")
        if "unpack_to" in model:
            ladder = json.loads((EMBEDDED / "lm" / model["name"] / "ladder.json").read_text(encoding="utf-8"))
            final = max(map(int, ladder["checkpoints"]))
            config = _config(ladder["config"])
        elif model["name"].removeprefix(LLM_JP_3) in HEADS_AND_FFN and model["layers"] and model["d_model"]:
            heads, ffn = HEADS_AND_FFN[model["name"].removeprefix(LLM_JP_3)]
            config = llama_config(model["layers"], model["d_model"], heads, ffn)
        else:
            config = _config(json.loads(_local_config(model, step).read_text(encoding="utf-8")))
        block, embedding = _parameters(config)
        text = config.get_text_config(decoder=True)
        return cls(text.num_hidden_layers, text.hidden_size, block, embedding, final, config)


def llama_config(layers: int, d_model: int, heads: int, ffn: int) -> Any:
    """The configuration of an LLM-jp-3 model."""
    return _config(
        {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": d_model,
            "intermediate_size": ffn,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "tie_word_embeddings": False,
        }
    )


def _config(described: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**described)


def _local_config(model: Mapping[str, Any], step: object) -> Path:
    number = model.get("final_step") if step == "final" else step
    path = model["path"]
    if isinstance(number, int):
        path = named(path, number, model["step_unit"], model["tokens_per_step"])
    file = Path(path).expanduser() / "config.json"
    if not file.is_file():
        raise Refused("path", path, "no config.json there: planning needs one local folder of the LM")
    return file


def _parameters(config: Any) -> tuple[int, int]:
    """Numbers of parameters of one decoder block and of the input embeddings."""
    import torch
    from transformers import AutoModel

    from bisae.lm.probe import decoder_blocks

    with torch.device("meta"):
        model = AutoModel.from_config(config)
    block = sum(parameter.numel() for parameter in decoder_blocks(model)[0].parameters())
    return block, model.get_input_embeddings().weight.numel()
