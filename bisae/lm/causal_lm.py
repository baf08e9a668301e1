"""Load the whole LM with its head."""

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
    """Load the whole LM with its head. Raises Refused as `bisae.lm.loading.load` does.

    Generation settings in the LM's folder are dropped (`bisae.lm.generation`).
    """
    checkpoint.check_predicts()
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code)
    own = "AutoModelForCausalLM" in getattr(config, "auto_map", {}) and checkpoint.trust_remote_code
    # LMs that read pictures too have an auto class of their own.
    auto = AutoModelForCausalLM if own or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForMultimodalLM
    model: PreTrainedModel = load(auto, checkpoint, dtype).to(device)  # type: ignore[arg-type]
    forget_folder(model)
    return model
