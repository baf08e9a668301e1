from tests.pair_of_lms import donor, final, lm, prompts, sae

__all__ = ["donor", "final", "lm", "prompts", "sae"]
