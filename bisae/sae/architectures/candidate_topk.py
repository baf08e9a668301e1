"""A TopK SAE that encodes in two steps: bf16 proposes candidates, float32 decides among them.

The m best latents of a token by a bf16 product are computed again in float32, and the k best of them are kept. A token
is accepted if its k-th value exceeds the largest value that a latent outside the m can have: their largest bf16 value
plus six standard deviations of its error. Tokens that are not accepted get the whole product in float32. So values,
loss and gradients are those of float32 products. The same latents were kept in every case seen, but that is no proof.
"""

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count
from bisae.sae.architectures.topk import TopK
from bisae.sae.encoder import Codes, Weights, encode, largest, pre_activations, scratch, top_k
from bisae.sae.kernels.products import BLOCK, dots
from bisae.sae.objective import Average, Objective, alone, sparse_objective

UNIT = 2**-8  # largest relative error of rounding to bf16
# Standard deviation of that error over all mantissas; a product of two rounded numbers has twice its variance.
SIGMA = UNIT * math.sqrt(2 / 3 * 3 / (8 * math.log(2)))
SIGMAS = 6  # the largest deviation seen in tens of millions of values was 5.4
TOO_MANY = (
    0.01  # share of tokens not accepted above which m grows by half; above MOST * k the float32 product is quicker
)
MOST = 8
PAYS = 0.9  # largest share of the float32 product's time: a smaller gain is not worth a change of the last bits


class Candidates:
    """Encodes centred float32 inputs, and counts the tokens that are not accepted.

    `per_token` is m, the number of candidates of a token; 0: use the float32 product.
    """

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
        """The share of tokens that needed the float32 product since the last call."""
        share = self.not_accepted / self.tokens if self.tokens else float(self.per_token == 0)
        self.tokens = self.not_accepted = 0
        return share

    def choose(
        self, centred: Float[Tensor, "token d_model"], weights: Weights, average: Callable[[Tensor], Tensor]
    ) -> None:
        """Keep `per_token` only if it makes encoding this batch quicker in the mean over ranks, else set it to 0."""
        kept = self.per_token

        def seconds(per_token: int) -> float:
            self.per_token = per_token
            started = time.perf_counter()
            self(centred, weights)
            if centred.is_cuda:
                torch.cuda.synchronize()
            return time.perf_counter() - started

        turns = [(seconds(kept), seconds(0)) for _ in range(3)]  # the first allocates memory and is slow
        quickest = torch.tensor([min(times) for times in zip(*turns[1:], strict=True)], device=centred.device)
        with_candidates, without = average(quickest).tolist()
        self.per_token = kept if with_candidates < PAYS * without else 0
        self.tokens = self.not_accepted = 0


def _candidates(
    centred: Float[Tensor, "token d_model"], weights: Weights, k: int, m: int
) -> tuple[Int64[Tensor, "token k"], Float[Tensor, "token k"], Bool[Tensor, " token"]]:
    """`(indices, float32 values, accepted)` for the best k of m candidates."""
    low = torch.empty_like(weights.W_enc, dtype=torch.bfloat16)
    fourth = centred.new_zeros(())  # the largest sum of the fourth powers of a latent's weights
    rows = max(1, BLOCK // centred.shape[1]) if centred.device.type == "cpu" else len(low)
    for wide, narrow in zip(weights.W_enc.split(rows), low.split(rows), strict=True):
        narrow.copy_(wide)
        fourth = torch.maximum(fourth, wide.square().square_().sum(1).max())
    bias = weights.b_enc.to(low.dtype)
    # Rounded up, so that no latent looks worse than it is.
    bias = torch.where(bias < weights.b_enc, torch.nextafter(bias, bias.new_tensor(torch.inf)), bias)
    products = scratch(len(centred), len(low), like=low)
    torch.addmm(bias, centred.to(low.dtype), low.T, out=products)
    # Read as integers, positive numbers keep their order, and all negative ones are below them.
    candidates = largest(products.view(torch.int16), m)
    # The bf16 product of a latent that is not a candidate is at most this; below 0 it does not matter which they are.
    limit = products.gather(1, candidates).float().amin(1).relu()

    values = _exact(centred, weights, candidates)
    best = largest(values, k)
    values = values.gather(1, best)
    # Sum of (x w)^2 over d_model is at most the root of sum x^4 sum w^4.
    deviation = SIGMA * (centred.square().square_().sum(1) * fourth).sqrt().sqrt()
    return candidates.gather(1, best), values, values.amin(1) > limit * (1 + UNIT) + SIGMAS * deviation


def _exact(
    centred: Float[Tensor, "token d_model"], weights: Weights, indices: Int64[Tensor, "token some"]
) -> Float[Tensor, "token some"]:
    """The pre-activations of these latents, each computed as a dot product."""
    where = Codes.fixed(torch.zeros_like(indices, dtype=centred.dtype), indices, len(weights.W_enc))
    return dots(centred, weights.W_enc, where).view_as(indices) + weights.b_enc[indices]


START = 2  # with candidates="auto" a token has START * k candidates


class CandidateTopK(TopK):
    """A TopK SAE, saved as TopK, with the same values, loss and gradients (see the head of this file).

    `candidates`: the number of candidates of a token; "auto": 2 k, if `on_start` finds that this is quicker.
    """

    def __init__(self, d_model: int, latents: Count, k: Count, candidates: Count | str, **settings: Any) -> None:
        super().__init__(d_model, latents, k, **settings)
        self.measured = candidates == "auto"
        per_token = START * k if self.measured else candidates
        if not isinstance(per_token, int) or per_token < k:
            raise Refused("candidates", candidates, f"must be auto or an integer of at least k={k}")
        self.encoder = Candidates(k, per_token)

    def on_start(self, x: Float[Tensor, "token d_model"], average: Average = alone) -> None:
        """With candidates="auto", measure before the first step whether candidates are quicker."""
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
