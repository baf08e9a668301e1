from typing import Any

import pytest
import torch
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import Matryoshka
from bisae.sae.architectures.batch_topk import batch_top_k
from bisae.sae.architectures.matryoshka import matryoshka_objective, prefixes_of
from bisae.sae.encoder import Weights
from bisae.sae.objective import differentiable_loss, sparse_objective
from tests.sae.dense_reference import dense_pre_activations, random_weights, relative_error, unit_rows


@pytest.mark.parametrize("k", [4, 40])  # below and above the density of dense products
def test_loss_and_gradients_equal_dense_autograd(k: int) -> None:
    weights, x, prefixes = random_weights(60, 12, 0), unit_rows(50, 12, 1), [10, 25, 60]
    found = matryoshka_objective(x, weights, k, prefixes)

    leaves = Weights(*(w.clone().requires_grad_() for w in weights))
    kept = batch_top_k(dense_pre_activations(x, weights), k).dense() > 0
    z = dense_pre_activations(x, leaves) * kept
    x_hats = [z[:, :m] @ leaves.W_dec[:m] + leaves.b_pre for m in prefixes]
    loss = sum(((x - x_hat) ** 2).sum(1).mean() for x_hat in x_hats) / 3
    assert isinstance(loss, Tensor) and torch.equal(found.codes.dense() > 0, kept)
    assert relative_error(found.loss, loss.detach()) < 1e-12
    assert relative_error(found.x_hat, x_hats[-1].detach()) < 1e-12
    for name, gradient, leaf in zip(Weights._fields, found.gradients, leaves, strict=True):
        (truth,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        assert relative_error(gradient, truth) < 1e-12, name


def test_backward_agrees_with_finite_differences() -> None:
    weights, x = random_weights(12, 4, 0), unit_rows(4, 4, 1)

    def loss(*parameters: Tensor) -> Tensor:
        return differentiable_loss(matryoshka_objective(x, Weights(*parameters), 4, [5, 12]), Weights(*parameters))

    assert torch.autograd.gradcheck(loss, [w.clone().requires_grad_() for w in weights])


def test_with_one_group_it_is_batch_topk() -> None:
    weights, x = random_weights(60, 12, 0), unit_rows(50, 12, 1)
    nested = matryoshka_objective(x, weights, 4, [60])
    plain = sparse_objective(
        x, weights, lambda centred, w: batch_top_k(dense_pre_activations(centred, w._replace(b_pre=0 * w.b_pre)), 4)
    )
    torch.testing.assert_close(nested.loss, plain.loss)
    for one, other in zip(nested.gradients, plain.gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_the_first_latents_learn_to_reconstruct_alone() -> None:
    x = unit_rows(200, 12, 1, torch.float32)
    settings: dict[str, Any] = {"threshold_rate": 0.1, "seed": 0, "aux_k": 0, "aux_coefficient": 0.0}
    error = {}
    for groups in ("1", "1/6+5/6"):
        sae = Matryoshka(12, 60, 4, groups, **settings)
        adam = torch.optim.Adam(sae.parameters(), lr=1e-2)
        for _ in range(50):
            adam.zero_grad()
            sae.objective(x).loss.backward()
            adam.step()
            sae.normalize_decoder()
        with torch.no_grad():
            first = sae.encode_unit(x).dense()[:, :10] @ sae.W_dec[:10] + sae.b_pre
        error[groups] = (x - first).square().sum(1).mean().item()
    assert error["1/6+5/6"] < 0.8 * error["1"]


def test_groups_are_shares_of_the_latents() -> None:
    assert prefixes_of("1/32+1/16+1/8+1/4+17/32", 1024) == [32, 96, 224, 480, 1024]
    assert prefixes_of("0.5+0.5", 5) == [2, 5]
    assert prefixes_of("1", 3) == prefixes_of(1, 3) == [3]


@pytest.mark.parametrize("groups", ["1/2", "1/2+1/2+1/2", "1/2,1/2", "", "1/0+1", "3/2+-1/2", "nan", "1+0", [1]])
def test_groups_that_are_no_shares_name_their_key(groups: object) -> None:
    with pytest.raises(Refused, match=r"^groups=.*: must be shares above 0 that sum to 1"):
        prefixes_of(groups, 60)


def test_a_group_without_a_latent_names_its_key() -> None:
    with pytest.raises(Refused, match=r"^groups=1/100\+99/100: latents=10 are too few"):
        prefixes_of("1/100+99/100", 10)
