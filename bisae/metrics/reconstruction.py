"""How well an SAE reconstructs activations, over all tokens and per language, from running float64 sums.

Definitions (x: unit-norm input, a = ||activation||, so a x is the LM's activation):

| name     | definition                                                                               |
|----------|------------------------------------------------------------------------------------------|
| fvu      | sum ||x - x_hat||^2 / sum ||x - mean x||^2, mean over all tokens measured                |
| r2       | 1 - fvu                                                                                  |
| fvu_raw  | the same in the LM's space: sum ||a x - a x_hat||^2 / sum ||a x - mean a x||^2           |
| l0       | mean number of latents above 0 per token                                                 |
| cosine   | mean cosine of x and x_hat                                                               |
| dead     | share of latents that fired on none of the tokens measured                               |
| gamma    | |mean x| / sqrt(mean |x - mean x|^2): how far the inputs are from centred; not the SAE's  |
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, distributed
from torchmetrics import Metric

from bisae.sae import Codes


class ReconstructionMetrics(Metric):
    """Running sums over tokens, by language. `compute` gives `fvu`, `fvu/en`, ... Under DDP sums of ranks add up.

    Not so with `over_ranks` false: of an SAE that this rank alone trains.
    """

    full_state_update = False
    tokens: Tensor
    error: Tensor
    error_raw: Tensor
    square: Tensor
    square_raw: Tensor
    total: Tensor
    total_raw: Tensor
    l0: Tensor
    cosine: Tensor
    fired: Tensor

    def __init__(self, languages: tuple[str, ...], d_model: int, latents: int, over_ranks: bool = True) -> None:
        super().__init__(sync_on_compute=over_ranks)
        self.languages = languages
        for name in ("tokens", "error", "error_raw", "square", "square_raw", "l0", "cosine"):
            self._add(name, (len(languages),))
        for name in ("total", "total_raw"):
            self._add(name, (len(languages), d_model))
        self._add("fired", (len(languages), latents))
        self.persistent(True)  # a resumed run logs what an uninterrupted one would

    def _add(self, name: str, shape: tuple[int, ...]) -> None:
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(
        self,
        x: Float[Tensor, "token d_model"],
        norm: Float[Tensor, " token"],
        x_hat: Float[Tensor, "token d_model"],
        codes: Codes,
        language: UInt8[Tensor, " token"],
    ) -> None:
        """Add a batch of tokens. Sums over d_model are in the dtype of the batch, sums over tokens in float64.

        Args:
            x: Activations of unit norm.
            norm: The norms that the activations had.
            x_hat: Their reconstructions.
            codes: Their codes.
            language: The index of each token's language in `languages`.
        """
        in_language = torch.zeros(len(self.languages), len(x), dtype=torch.float64, device=x.device)
        in_language.scatter_(0, language.long()[None], 1.0)  # [language, token]: 1 or 0
        a = norm.double()
        error = (x - x_hat).square().sum(1).double()
        square = x.square().sum(1).double()
        lengths = (square * x_hat.square().sum(1).double()).sqrt()
        wide = x.double()
        self.tokens += in_language.sum(1)
        self.error += in_language @ error
        self.error_raw += in_language @ (a.square() * error)
        self.square += in_language @ square
        self.square_raw += in_language @ (a.square() * square)
        self.total += in_language @ wide
        self.total_raw += (in_language * a) @ wide
        self.l0 += in_language @ codes.l0().double()
        self.cosine += in_language @ ((x * x_hat).sum(1).double() / lengths.clamp_min(1e-30))
        firing = codes.values > 0
        spoken = language[codes.token_of_entry()[firing]].long()
        self.fired[spoken, codes.indices[firing].long()] = 1.0

    def gather(self) -> None:
        """Under DDP: add the sums of all ranks to those of rank 0, which a save holds. The other ranks restart at 0."""
        if self.sync_on_compute and distributed.is_initialized() and distributed.get_world_size() > 1:
            for state in self._states():
                distributed.reduce(state, dst=0)
            if distributed.get_rank() > 0:
                self.forget()

    def forget(self) -> None:
        """Set all sums to 0 in place, which `reset` does not do."""
        for state in self._states():
            state.zero_()

    def _states(self) -> list[Tensor]:
        return [state for state in self.metric_state.values() if isinstance(state, Tensor)]

    def compute(self) -> dict[str, float]:
        """Every metric over all tokens, then for each language that has a token. NaN if the variance is 0."""
        values = self._values(slice(None))
        for index, language in enumerate(self.languages):
            if self.tokens[index] > 0:
                values |= {f"{name}/{language}": v for name, v in self._values(slice(index, index + 1)).items()}
        return values

    def _values(self, chosen: slice) -> dict[str, float]:
        def add(state: Tensor) -> Tensor:
            return state[chosen].sum(0)

        tokens = add(self.tokens)
        variance = add(self.square) - add(self.total).square().sum() / tokens
        variance_raw = add(self.square_raw) - add(self.total_raw).square().sum() / tokens
        fvu = add(self.error) / variance
        return {
            "fvu": fvu.item(),
            "r2": 1 - fvu.item(),
            "fvu_raw": (add(self.error_raw) / variance_raw).item(),
            "l0": (add(self.l0) / tokens).item(),
            "cosine": (add(self.cosine) / tokens).item(),
            "dead": (add(self.fired) == 0).double().mean().item(),
            "gamma": (add(self.total).square().sum() / tokens / variance).sqrt().item(),
        }
