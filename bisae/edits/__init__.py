"""An LM with its residual stream edited as it runs."""
