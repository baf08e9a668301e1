"""TopK in float32 at the price of a bf16 product: bf16 finds candidates, float32 judges them.

The m best latents of a token by a bf16 product are computed again in float32, and the k best of these kept. A token is
accepted if its k-th value exceeds what any latent outside the m can have: their largest bf16 value and six standard
deviations of its error. The others get the product in float32. So values, loss and gradients are those of float32
products; which latents are kept was so in every case seen, but six sigma is no proof.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bisae.runtime.errors import ConfigError
from bisae.runtime.ranges import Count
from bisae.sae.architectures.topk import TopK
from bisae.sae.codes import Codes
from bisae.sae.encoder import Weights, encode, largest, pre_activations, scratch, top_k
from bisae.sae.kernels.products import BLOCK, dots
from bisae.sae.objective import Average, Objective, alone, sparse_objective

UNIT = 2**-8  # largest relative error of rounding to bf16
# Standard deviation of that error over numbers of all mantissas; a product of two rounded numbers has twice its square.
SIGMA = UNIT * math.sqrt(2 / 3 * 3 / (8 * math.log(2)))
SIGMAS = 6  # the largest deviation seen in tens of millions of values was 5.4
TOO_MANY = 0.01  # share of tokens not accepted at which m grows by half; past MOST k the float32 product is quicker
MOST = 8
PAYS = 0.9  # of the float32 product's time: less is not worth a change of the last bits


class Candidates:
    """Encodes centred float32 inputs; `per_token` is m, or 0 to take the float32 product. Counts accepted tokens."""

    def __init__(self, k: int, per_token: int) -> None:
        self.k, self.per_token = k, per_token
        self.tokens = self.not_accepted = 0

    @torch.no_grad()
    def __call__(self, centred: Float[Tensor, "token d_model"], weights: Weights) -> Codes:
        if not self.per_token or centred.dtype != torch.float32 or torch.is_autocast_enabled(centred.device.type):
            return encode(centred, weights, partial(top_k, k=self.k))
        m = min(self.per_token, len(weights.W_enc))
        indices, values, accepted = _candidates(centred, weights, self.k, m)
        missing = (~accepted).nonzero().squeeze(1)
        if len(missing):
            rows = centred[missing]
            dense = pre_activations(rows, weights.W_enc, weights.b_enc)
            indices[missing] = largest(dense, self.k)
            # Not from `dense`: the last bits must not depend on how many candidates there were.
            values[missing] = _exact(rows, weights, indices[missing])
        self.tokens += len(centred)
        self.not_accepted += len(missing)
        if len(missing) > TOO_MANY * len(centred):
            self.per_token += self.per_token // 2
            if self.per_token > MOST * self.k:
                self.per_token = 0
        return Codes.fixed(values.relu(), indices, len(weights.W_enc))

    def share(self) -> float:
        """The share of tokens that needed the float32 product, since this was last asked."""
        share = self.not_accepted / self.tokens if self.tokens else float(self.per_token == 0)
        self.tokens = self.not_accepted = 0
        return share

    def choose(
        self, centred: Float[Tensor, "token d_model"], weights: Weights, average: Callable[[Tensor], Tensor]
    ) -> None:
        """Keep `per_token` only if it makes encoding this batch quicker, on the average over ranks."""
        kept = self.per_token

        def seconds(per_token: int) -> float:
            self.per_token = per_token
            started = time.perf_counter()
            self(centred, weights)
            if centred.is_cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - started

        turns = [(seconds(kept), seconds(0)) for _ in range(3)]  # the first takes memory and is slow
        quickest = torch.tensor([min(times) for times in zip(*turns[1:], strict=True)], device=centred.device)
        with_candidates, without = average(quickest).tolist()
        self.per_token = kept if with_candidates < PAYS * without else 0
        self.tokens = self.not_accepted = 0


def _candidates(
    centred: Float[Tensor, "token d_model"], weights: Weights, k: int, m: int
) -> tuple[Int64[Tensor, "token k"], Float[Tensor, "token k"], Bool[Tensor, " token"]]:
    """(indices, float32 values, accepted) of the best k of m candidates."""
    low = torch.empty_like(weights.W_enc, dtype=torch.bfloat16)
    fourth = centred.new_zeros(())  # largest sum of fourth powers of a latent's weights
    rows = max(1, BLOCK // centred.shape[1]) if centred.device.type == "cpu" else len(low)
    for wide, narrow in zip(weights.W_enc.split(rows), low.split(rows), strict=True):
        narrow.copy_(wide)
        fourth = torch.maximum(fourth, wide.square().square_().sum(1).max())
    bias = weights.b_enc.to(low.dtype)
    # Rounded up, so that it makes no latent look worse than it is.
    bias = torch.where(bias < weights.b_enc, torch.nextafter(bias, bias.new_tensor(torch.inf)), bias)
    products = scratch(len(centred), len(low), like=low)
    torch.addmm(bias, centred.to(low.dtype), low.T, out=products)
    # As integers of their bits positive numbers keep their order, and negative ones are below them all.
    found = largest(products.view(torch.int16), m)
    # Any latent not found has a product, in bf16, of at most this; below 0 it does not matter which are found.
    limit = products.gather(1, found).float().amin(1).relu()

    values = _exact(centred, weights, found)
    best = largest(values, k)
    values = values.gather(1, best)
    # Sum of (x w)^2 over d_model is at most the root of sum x^4 sum w^4.
    deviation = SIGMA * (centred.square().square_().sum(1) * fourth).sqrt().sqrt()
    return found.gather(1, best), values, values.amin(1) > limit * (1 + UNIT) + SIGMAS * deviation


def _exact(
    centred: Float[Tensor, "token d_model"], weights: Weights, indices: Int64[Tensor, "token some"]
) -> Float[Tensor, "token some"]:
    """The pre-activations of these latents, each as a product of its own."""
    where = Codes.fixed(torch.zeros_like(indices, dtype=centred.dtype), indices, len(weights.W_enc))
    return dots(centred, weights.W_enc, where).view_as(indices) + weights.b_enc[indices]


START = 2  # candidates a token, in k, with candidates="auto"


class CandidateTopK(TopK):
    """TopK, and saved as TopK: the same values, loss and gradients (see bisae.sae.architectures.candidate_topk).

    `candidates`: how many a token, or "auto" for 2 k if `on_start` then finds the step to be quicker.
    """

    def __init__(self, d_model: int, latents: Count, k: Count, candidates: Count | str, **settings: Any) -> None:
        super().__init__(d_model, latents, k, **settings)
        self.measured = candidates == "auto"
        per_token = START * k if self.measured else candidates
        if not isinstance(per_token, int) or per_token < k:
            raise ConfigError("sae.candidates", candidates, f"must be auto or an integer of at least sae.k={k}")
        self.encoder = Candidates(k, per_token)

    def on_start(self, x: Float[Tensor, "token d_model"], average: Average = alone) -> None:
        """Measure whether candidates pay, where the user leaves that to bisae."""
        if self.measured:
            self.encoder.choose(x - self.b_pre.detach(), self.weights, average)

    def extra_metrics(self) -> dict[str, float]:
        """`float32_tokens`: the share of tokens that needed the float32 product."""
        return {"float32_tokens": self.encoder.share()}

    def extra_state(self) -> dict[str, Any]:
        """How many candidates a token has by now."""
        return {"candidates": self.encoder.per_token}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.encoder.per_token = state["candidates"]

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return sparse_objective(x, self.weights, self.encoder)
