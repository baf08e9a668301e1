"""The Matryoshka BatchTopK SAE: nested SAEs (Bussmann et al. 2025, arXiv 2503.17547).

x_hat_m = the decoded codes of the first m groups of latents + b_pre
loss    = mean over m and tokens of |x - x_hat_m|^2
"""

from fractions import Fraction
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.runtime.ranges import Count, Index, NotNegative, Share, Text
from bisae.sae.architectures.batch_topk import BatchTopK, batch_top_k
from bisae.sae.encoder import Codes, Weights, encode
from bisae.sae.kernels.products import RowSums, products_of
from bisae.sae.objective import Objective


class Matryoshka(BatchTopK):
    """BatchTopK over all latents, trained so that the first m groups of latents reconstruct alone too, for every m.

    `groups`: each group's share of the latents, as a sum that is 1: "1/4+1/4+1/2".
    """

    architecture = "matryoshka"

    def __init__(
        self,
        d_model: int,
        latents: Count,
        k: Count,
        groups: Text,
        threshold_rate: Share,
        seed: Index,
        aux_k: Index,
        aux_coefficient: NotNegative,
    ) -> None:
        super().__init__(d_model, latents, k, threshold_rate, seed, aux_k, aux_coefficient)
        self.groups, self.prefixes = groups, prefixes_of(groups, latents)

    @property
    def arguments(self) -> dict[str, int | float | bool | str]:
        return {**super().arguments, "groups": self.groups}

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return matryoshka_objective(x, self.weights, self.k, self.prefixes)


def prefixes_of(groups: object, latents: int) -> list[int]:
    """The number of latents in the first 1, 2, ... groups together, rounded.

    Raises:
        Refused: the shares are not above 0, or do not sum to 1, or a group has no latent.
    """
    try:
        shares = [Fraction(share) for share in str(groups).split("+")]
    except (ValueError, ZeroDivisionError):
        shares = []
    if sum(shares) != 1 or min(shares) <= 0:
        raise Refused("groups", groups, "must be shares above 0 that sum to 1, as 1/4+1/4+1/2")
    prefixes = [round(share * latents) for share in accumulate(shares)]
    if len({0, *prefixes}) <= len(prefixes):
        raise Refused("groups", groups, f"latents={latents} are too few: a group has none")
    return prefixes


@torch.no_grad()
def matryoshka_objective(x: Float[Tensor, "token d_model"], weights: Weights, k: int, prefixes: list[int]) -> Objective:
    """The loss with its exact gradients; see bisae/sae/objective.py.

    A latent of group g is part of x_hat_g and of all later x_hat, so its gradient has the sum of their errors in place
    of one error. The codes of one group on one token are treated as a token of their own, so that the usual products
    can be used.

    `prefixes`: the number of latents in the first 1, 2, ... groups together.
    """
    centred, groups = x - weights.b_pre, len(prefixes)
    codes = encode(centred, weights, lambda pre_activations: batch_top_k(pre_activations, k))
    with torch.autocast(x.device.type, enabled=False):
        split = by_group(codes, prefixes)
        products = products_of(split)
        x_hat = products.decode(weights.W_dec).view(groups, *x.shape).cumsum(0) + weights.b_pre
        error = x_hat - x
        loss = error.square().sum(2).mean()

        grad_x_hat = error * (2 / (groups * len(x)))
        grad_group = grad_x_hat.flip(0).cumsum(0).flip(0).flatten(0, 1)
        grad_z = products.dots(grad_group, weights.W_dec).masked_fill(split.values <= 0, 0)
        grad_b_enc = products.totals(grad_z)
        return Objective(
            loss,
            codes,
            x_hat[-1],
            grad_W_enc=RowSums(products, centred.repeat(groups, 1), grad_z),
            grad_b_enc=grad_b_enc,
            grad_W_dec=RowSums(products, grad_group, split.values),
            grad_b_pre=grad_x_hat.sum((0, 1)) - grad_b_enc @ weights.W_enc,
        )


def by_group(codes: Codes, prefixes: list[int]) -> Codes:
    """The codes split by group: a row for every group and token, all tokens of the first group first."""
    ends = torch.tensor(prefixes, device=codes.indices.device)
    row = torch.bucketize(codes.indices, ends, right=True) * codes.tokens + codes.token_of_entry()
    row, order = row.sort(stable=True)
    rows = torch.arange(len(prefixes) * codes.tokens + 1, device=row.device)
    return Codes(codes.values[order], codes.indices[order], torch.searchsorted(row, rows), codes.latents)
