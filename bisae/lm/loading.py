"""Load an LM's weights completely, or refuse: transformers would draw missing weights at random.

transformers reports missing weights in a message that is silenced here, since it also names every unused LM head.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from bisae.lm.model import Checkpoint
from bisae.lm.probe import ROUNDING, leaked, text_config
from bisae.runtime.errors import Refused, explained

# Buffers that old exports hold among the weights of a block: causal masks, rotary tables, positions.
BUFFER = re.compile(
    r"(^|\.)(\w*attn|\w*attention)\.(bias|masked_bias)$"
    r"|(^|\.)(inv_freq|original_inv_freq|cos_cached|sin_cached|position_ids|masked_bias)$"
)
MORE_TOKENS = re.compile(r"(^|\.)mtp")  # blocks behind the last one that predict the token after the next
POOLER = re.compile(r"(^|\.)pooler\.")  # reads the last stream and writes to none


def load(auto: Any, checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    """Load the whole LM on the CPU, in evaluation mode.

    Args:
        auto: Auto class of transformers, such as `AutoModel`.
        dtype: Data type of the weights.

    Raises:
        Refused: The LM in `path` is not decoder-only (see `bisae.lm.probe`), or its weights cannot be read, are
            missing, have another shape than config.json says, or have no place in the LM that config.json describes.
    """
    model, loading = _from_pretrained(auto, checkpoint, dtype)
    leak, why = _leaked(model)
    if not leak <= ROUNDING and dtype != torch.float32:
        # In half precision experts round differently with other neighbours, and some products exist on a GPU only.
        leak, why = _leaked(_from_pretrained(auto, checkpoint, torch.float32)[0])
    if leak > ROUNDING:
        raise Refused("path", checkpoint.folder, f"not a decoder-only LM{why}")
    check_complete(model, checkpoint.folder, loading)  # last: an encoder's missing pooler says less than the above
    return model


def _leaked(model: PreTrainedModel) -> tuple[float, str]:
    """Return `leaked`, infinite if it cannot be measured, and the reason to refuse the LM."""
    try:
        leak = leaked(model)
    except Exception as error:
        if explained(error):
            raise
        return math.inf, f" that can be read: {_line(error)}"
    return leak, f": a later token changes earlier activations, by {leak:.2g} of the change at the token itself"


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _from_pretrained(auto: Any, checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[PreTrainedModel, dict[str, Any]]:
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        model, loading = auto.from_pretrained(
            checkpoint.folder,
            dtype=dtype,
            trust_remote_code=checkpoint.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except Exception as error:  # of pickle, zipfile, safetensors, torch and the LM's own code
        if explained(error):  # refused already; memory, a disk, a right that is missing
            raise
        raise Refused("path", checkpoint.folder, f"cannot be loaded: {_line(error)}") from error
    return model.eval(), loading


def check_complete(model: PreTrainedModel, folder: Path, loading: Mapping[str, Any]) -> None:
    """Refuse a model that, by its loading info, is not the one in the folder."""
    if mismatched := sorted(loading["mismatched_keys"]):
        name, held, described = mismatched[0]
        shapes = f"{name} is {list(held)} in its weights and {list(described)} by its config.json"
        raise Refused("path", folder, f"holds {len(mismatched)} weights of another shape: {shapes}")
    if missing := sorted(name for name in loading["missing_keys"] if not POOLER.search(name)):
        raise Refused("path", folder, f"lacks {len(missing)} weights, such as {missing[0]}")
    if left_over := sorted(name for name in loading["unexpected_keys"] if _of_the_stream(name, model)):
        described = f"num_hidden_layers {getattr(text_config(model), 'num_hidden_layers', None)}"
        held = f"holds {len(left_over)} weights, such as {left_over[0]}, that have no place in the LM of config.json"
        raise Refused("path", folder, f"{held} ({described}): is it the config of another LM?")


def _of_the_stream(name: str, model: PreTrainedModel) -> bool:
    """True if an unloaded weight lies in the part of the model that was loaded; heads lie outside it."""
    inside = name.startswith(f"{model.base_model_prefix}.") or hasattr(model, name.partition(".")[0])
    head = "lm_head" in name.split(".") and model.get_output_embeddings() is None
    if not inside or head or BUFFER.search(name) or MORE_TOKENS.search(name):
        return False
    # DeepSeek's and GLM's blocks that predict the token after the next are numbered on behind those that config counts.
    more = getattr(text_config(model), "num_nextn_predict_layers", None) or 0
    numbers = [int(part) for part in name.split(".") if part.isdecimal()]
    return not (more and numbers and 0 <= numbers[0] - text_config(model).num_hidden_layers < more)
