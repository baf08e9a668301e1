"""A TopK SAE whose training step finds its latents by a bf16 product, where that pays."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bisae.errors import ConfigError
from bisae.runtime.ranges import Count
from bisae.sae.candidates import Candidates
from bisae.sae.objective import Objective, sparse_objective
from bisae.sae.topk import TopK

START = 2  # candidates a token, in k, with candidates="auto"


class CandidateTopK(TopK):
    """TopK, and saved as TopK: the same values, loss and gradients (see bisae.sae.candidates).

    `candidates`: how many a token, or "auto" for 2 k if `choose_encoder` then finds the step to be quicker.
    """

    def __init__(self, d_model: int, latents: Count, k: Count, candidates: Count | str, **settings: Any) -> None:
        super().__init__(d_model, latents, k, **settings)
        self.measured = candidates == "auto"
        per_token = START * k if self.measured else candidates
        if not isinstance(per_token, int) or per_token < k:
            raise ConfigError("sae.candidates", candidates, f"must be auto or an integer of at least sae.k={k}")
        self.encoder = Candidates(k, per_token)

    def choose_encoder(self, x: Float[Tensor, "token d_model"], average: Callable[[Tensor], Tensor]) -> None:
        """Before the first step: measure on unit-norm inputs; `average` is the mean over ranks."""
        if self.measured:
            self.encoder.choose(x - self.b_pre.detach(), self.weights, average)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return sparse_objective(x, self.weights, self.encoder)
