"""Language models: checkpoints, tokenizers, residual streams, losses and generation."""
