"""The whole LM, with its head."""

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedModel,
)

from bisae.lm.generation import forget_folder
from bisae.lm.loading import load
from bisae.lm.model import Checkpoint


def load_causal_lm(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The whole LM with its head, ready to be asked. Refused as in `bisae.lm.loading.load`.

    It generates as it is told, never as its folder says (`bisae.lm.generation`).
    """
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code)
    own = "AutoModelForCausalLM" in getattr(config, "auto_map", {}) and checkpoint.trust_remote_code
    # What reads pictures too has an auto class of its own, but where its text decoder does not.
    auto = AutoModelForCausalLM if own or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForMultimodalLM
    model: PreTrainedModel = load(auto, checkpoint, dtype).to(device)  # type: ignore[arg-type]
    forget_folder(model)
    return model
