"""TopK in two steps: a quick product proposes candidates, float32 and float64 decide among them, a bound proves it.

With x~, w~, the vectors x and w rounded to bf16, Cauchy and Schwarz give, for each latent,

    x w + b <= x~ w~ + |x - x~| |w| + |x~| |w - w~| + b.

The right side is one bf16 product of x and w with four more columns (`extended`), in which whatever is rounded is
rounded up. So one product gives an upper bound of every pre-activation, but for two errors: of its float32 sum, which
the columns contain, and of rounding the result to bf16, at most `UNIT`. The m latents of the largest bounds are the
candidates, and no other latent can be above the m-th bound. The candidates are computed again in float32. A token is
accepted if the k-th of their values, less its own error, is above what any other latent can reach. Tokens that are not
accepted get the whole product in float64, and so do candidates too close to each other for float32.

So the latents kept are those of the exact dot products, but for ties that float64 does not tell apart either, and
values, loss and gradients are those of float32 dot products: the same bits for any m, and where the float32 product
proposes in place of bf16 (`in_float32`). docs/speed.md has the derivation.
"""

from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import BFloat16, Bool, Float, Float32, Float64, Int64
from torch import Tensor

from bisae.runtime.device import sums_in_float32
from bisae.runtime.errors import Refused
from bisae.sae.encoder import DENSE, Codes, Weights, encode, largest, scratch, top_k
from bisae.sae.kernels.choice import quickest
from bisae.sae.kernels.dense import exact, product, quick_in_bf16
from bisae.sae.kernels.products import BLOCK, dots

UNIT = 2**-8  # largest relative error of rounding to bf16, which has 8 binary digits
# Twice the same of an addition in float32, rounded or cut off: matrix units cut off each product of a block of at least
# two at the last digit of the largest, and then their sum.
SUM = 2**-22
TINY = 2**-100  # more than all that is lost below the smallest normal number, 2**-126, of bf16 and float32
START = 2  # with candidates="auto" a token has START * k candidates at first
TOO_MANY = 0.01  # share of tokens not accepted above which m grows by half
MOST = 8  # above MOST * k candidates the float32 product proposes them, which needs few
SPARE = 8  # with it a token has k + SPARE candidates


def pays(device: torch.device, tokens: int, latents: int, d_model: int, k: int) -> bool:
    """Whether candidates are quicker than the float32 product: follows from the device and the sizes alone.

    The encoder is rounded anew in each step, so there must be tokens enough; and latents, to be worth leaving out. What
    benchmarks/device.py has found on a GPU counts more.
    """
    found = quickest(device, latents, d_model, "32-true", tokens)
    if found is not None:
        return found == "candidates"
    return tokens >= 1024 and latents >= 256 * k and latents * d_model >= 2**20 and quick_in_bf16(device)


class Candidates:
    """Encodes centred inputs, and counts the tokens that are not accepted.

    Args:
        k: number of latents of a token.
        wanted: m, the number of candidates of a token at first; "none": the plain product, and its k largest;
            "auto": `START` * k where that `pays`, else none.

    Raises:
        Refused: `wanted`, as `candidates`.
    """

    def __init__(self, k: int, wanted: int | str) -> None:
        if isinstance(wanted, int) and not k <= wanted <= MOST * k:
            raise Refused("candidates", wanted, f"must be auto, none or an integer from k={k} to {MOST} k={MOST * k}")
        self.k = k
        # m; 0: the plain product; None: to be decided with the first tokens.
        self.per_token: int | None = wanted if isinstance(wanted, int) else 0 if wanted == "none" else None
        self.tokens = self.not_accepted = 0
        self.ran: list[str] = []  # what proposed the candidates, in the order in which it first did

    @torch.no_grad()
    def __call__(self, centred: Float[Tensor, "token d_model"], weights: Weights) -> Codes:
        if self.per_token is None:
            latents, d_model = weights.W_enc.shape
            self.per_token = START * self.k if pays(centred.device, len(centred), latents, d_model, self.k) else 0
        proved = centred.dtype == torch.float32 and exact(centred) and sums_in_float32(centred.device)
        if not self.per_token or not proved:
            return encode(centred, weights, partial(top_k, k=self.k))
        quick = self.per_token <= MOST * self.k
        m = self.per_token if quick else self.k + SPARE
        by: Literal["bf16", "float32"] = "bf16" if quick else "float32"
        if by not in self.ran:
            self.ran.append(by)
        indices, values, accepted = select(centred, weights, self.k, min(m, len(weights.W_enc)), by)
        missing = (~accepted).nonzero().squeeze(1)
        for some in missing.split(max(1, DENSE // 4 // len(weights.W_enc))):
            indices[some] = _best_in_float64(centred[some], weights, self.k)
            values[some] = _dots(centred[some], weights, indices[some])
        self.tokens += len(centred)
        self.not_accepted += len(missing)
        if quick and len(missing) > TOO_MANY * len(centred):
            self.per_token += max(1, self.per_token // 2)
        return Codes.fixed(values.relu(), indices, len(weights.W_enc))

    def share(self) -> float | None:
        """The share of tokens that needed the whole product in float64 since the last call; None: had no candidates."""
        share = self.not_accepted / self.tokens if self.tokens else None
        self.tokens = self.not_accepted = 0
        return share


def _gamma(terms: int) -> float:
    """The largest error of a float32 sum of products, relative to the sum of their absolute values.

    In any order, on a CPU or by the matrix units of a GPU (docs/speed.md).
    """
    return (terms + 8) * SUM / (1 - (terms + 8) * SUM)


def _norms(rows: Float32[Tensor, "row d_model"]) -> Float32[Tensor, " row"]:
    """At least the L2 norm of each row, whatever is rounded."""
    return torch.linalg.vector_norm(rows, dim=1) * (1 + 2 * _gamma(rows.shape[1])) + TINY**0.5


def _up(values: Float32[Tensor, "*shape"]) -> BFloat16[Tensor, "*shape"]:
    """The values rounded to bf16, none to a smaller one."""
    low = values.bfloat16()
    return torch.where(low < values, torch.nextafter(low, low.new_tensor(torch.inf)), low)


def extended(
    centred: Float32[Tensor, "token d_model"], weights: Weights
) -> tuple[
    BFloat16[Tensor, "token d_model_and_four"],
    BFloat16[Tensor, "latent d_model_and_four"],
    Float32[Tensor, " token"],
    Float32[Tensor, ""],
]:
    """x~ and w~ with four more columns each, so that their product bounds the pre-activation from above.

    Returns:
        `(left, right, lengths, longest)`: upper bounds also of the tokens' L2 norms, and of the longest latent's.
    """
    d, latents = centred.shape[1], len(weights.W_enc)
    gamma, bias = _gamma(d + 4), weights.b_enc
    right = centred.new_empty(latents, d + 4, dtype=torch.bfloat16)
    norms = centred.new_empty(latents)
    rows = max(1, BLOCK // d) if centred.device.type == "cpu" else latents
    for first in range(0, latents, rows):
        some = slice(first, first + rows)
        wide, narrow = weights.W_enc[some], right[some, :d]
        narrow.copy_(wide)
        norms[some] = _norms(wide)
        right[some, d] = _up(_norms(wide - narrow.float()))
    right[:, d + 1] = _up(norms)
    right[:, d + 2] = bias
    right[:, d + 3] = _up(bias - right[:, d + 2].float() + 2 * gamma * bias.abs() + TINY)

    left = centred.new_ones(len(centred), d + 4, dtype=torch.bfloat16)
    left[:, :d] = centred
    rounded = left[:, :d].float()
    lengths = _norms(rounded)
    left[:, d] = _up(lengths)
    # The error of the sum is gamma times a little more than |x~| |w~| + |b|, since the four columns are terms of it.
    left[:, d + 1] = _up(_norms(centred - rounded) + gamma * (1 + 2**-4) * lengths)
    return left, right, lengths, norms.amax()


class Proposal(NamedTuple):
    """m latents of each token, and what no other one can be above."""

    candidates: Int64[Tensor, "token m"]
    limit: Float32[Tensor, " token"]
    error: Float32[Tensor, " token"]  # of a pre-activation as a float32 dot product, at most
    finite: Bool[Tensor, " token"]  # no sum can have been infinite on its way


def in_bf16(centred: Float32[Tensor, "token d_model"], weights: Weights, m: int) -> Proposal:
    """The latents of the largest bounds."""
    left, right, lengths, longest = extended(centred, weights)
    bounds = scratch(len(centred), len(right), like=right)
    torch.mm(left, right.T, out=bounds)
    # Read as integers, positive numbers keep their order, and all negative ones are below them.
    candidates = largest(bounds.view(torch.int16), m)
    limit = bounds.gather(1, candidates).float().amin(1)
    greatest = weights.b_enc.abs().amax()
    error = _gamma(left.shape[1]) * (_norms(centred) * longest + greatest)
    # Where a candidate's bound is negative, so are those of all other latents.
    limit = torch.where(limit < 0, limit, limit * (1 + UNIT) + TINY)
    return Proposal(candidates, limit, error, (4 * lengths * longest + greatest).isfinite())


def in_float32(centred: Float32[Tensor, "token d_model"], weights: Weights, m: int) -> Proposal:
    """The latents of the largest float32 pre-activations, each of which has the error of any float32 sum."""
    pre = product(centred, weights.W_enc, weights.b_enc, scratch(len(centred), len(weights.W_enc), like=centred))
    candidates = largest(pre, m)
    size = max(1, BLOCK // centred.shape[1])
    longest = torch.stack([_norms(rows).amax() for rows in weights.W_enc.split(size)]).amax()
    greatest, lengths = weights.b_enc.abs().amax(), _norms(centred)
    error = _gamma(centred.shape[1] + 4) * (lengths * longest + greatest)
    limit = pre.gather(1, candidates).amin(1) + error
    return Proposal(candidates, limit, error, (4 * lengths * longest + greatest).isfinite())


def select(
    centred: Float32[Tensor, "token d_model"], weights: Weights, k: int, m: int, by: Literal["bf16", "float32"] = "bf16"
) -> tuple[Int64[Tensor, "token k"], Float32[Tensor, "token k"], Bool[Tensor, " token"]]:
    """`(indices, float32 values, accepted)` for the best k of m candidates, which a product in `by` proposes."""
    candidates, limit, error, finite = (in_bf16 if by == "bf16" else in_float32)(centred, weights, m)
    values = _dots(centred, weights, candidates)
    best = largest(values, k)
    kth = values.gather(1, best).amin(1, keepdim=True)
    close = (values - kth).abs() <= 2 * error[:, None]  # float32 cannot tell them from the k-th
    ties = (close.sum(1) > 1).nonzero().squeeze(1)
    if len(ties):
        row, column = close[ties].nonzero(as_tuple=True)
        order = torch.where(values[ties] > kth[ties], torch.inf, -torch.inf).double()
        order[row, column] = _double_dots(centred, weights, ties[row], candidates[ties[row], column])
        best[ties] = largest(order, k)
    accepted = ((kth.squeeze(1) - error > limit) | (limit < 0)) & finite
    return candidates.gather(1, best), values.gather(1, best), accepted


def _dots(
    centred: Float32[Tensor, "token d_model"], weights: Weights, indices: Int64[Tensor, "token some"]
) -> Float32[Tensor, "token some"]:
    """The pre-activations of these latents, each computed as a dot product."""
    where = Codes.fixed(torch.zeros_like(indices, dtype=centred.dtype), indices, len(weights.W_enc))
    return dots(centred, weights.W_enc, where).view_as(indices) + weights.b_enc[indices]


def _double_dots(
    centred: Float32[Tensor, "token d_model"],
    weights: Weights,
    tokens: Int64[Tensor, " entry"],
    latents: Int64[Tensor, " entry"],
) -> Float64[Tensor, " entry"]:
    """The pre-activations of single latents on single tokens, in float64."""
    parts = zip(tokens.split(BLOCK // 64), latents.split(BLOCK // 64), strict=True)
    products = [(centred[token].double() * weights.W_enc[latent]).sum(1) for token, latent in parts]
    return torch.cat(products) + weights.b_enc[latents]


def _best_in_float64(centred: Float32[Tensor, "token d_model"], weights: Weights, k: int) -> Int64[Tensor, "token k"]:
    """The k best of all latents."""
    x, size = centred.double(), max(1, BLOCK // centred.shape[1])
    pairs = zip(weights.W_enc.split(size), weights.b_enc.split(size), strict=True)
    return largest(torch.cat([torch.addmm(b.double(), x, W.double().T) for W, b in pairs], 1), k)
