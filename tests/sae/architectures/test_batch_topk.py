from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import BatchTopK
from bisae.sae.architectures.batch_topk import batch_top_k
from bisae.sae.encoder import Weights, encode
from bisae.sae.objective import differentiable_loss, sparse_objective
from tests.sae.dense_reference import dense_objective, dense_pre_activations, random_weights, relative_error, unit_rows
from tests.sae.test_sparse_autoencoder import randomized

SETTINGS: dict[str, Any] = {
    "d_model": 12,
    "latents": 60,
    "k": 4,
    "threshold_rate": 0.1,
    "seed": 0,
    "aux_k": 0,
    "aux_coefficient": 0.5,
}


def test_the_largest_of_the_batch_are_kept_wherever_they_are() -> None:
    pre = torch.tensor([[0.9, 0.8, 0.7], [0.1, 0.6, -1.0]])
    codes = batch_top_k(pre, 2)
    assert torch.equal(codes.dense(), torch.tensor([[0.9, 0.8, 0.7], [0.0, 0.6, 0.0]]))
    assert codes.l0().tolist() == [3, 1]


def test_with_too_few_positive_the_rest_is_no_firing() -> None:
    codes = batch_top_k(torch.tensor([[0.5, -0.1, -0.2], [-0.3, -0.4, 0.2]]), 2)
    assert len(codes.values) == 4 and codes.l0().tolist() == [1, 1] and codes.values.min() == 0


def test_a_value_that_is_no_number_is_kept_so_that_the_loss_shows_it() -> None:
    assert batch_top_k(torch.tensor([[0.5, torch.nan], [0.1, 0.2]]), 1).values.isnan().any()


@pytest.mark.parametrize("k", [4, 20])  # below and above the density of dense products
def test_loss_and_gradients_equal_dense_autograd(k: int) -> None:
    sae, x = randomized(BatchTopK(**{**SETTINGS, "k": k}).double()), unit_rows(50, 12, 1)
    loss, codes, _ = sae.objective(x)
    loss.backward()
    kept = torch.zeros(50 * 60, dtype=torch.bool)
    kept[dense_pre_activations(x, sae.weights).flatten().topk(50 * k)[1]] = True
    truth = dense_objective(x, sae.weights, kept.view(50, 60))
    assert torch.equal(codes.dense() > 0, kept.view(50, 60) & (dense_pre_activations(x, sae.weights) > 0))
    assert codes.l0().unique().numel() > 1
    assert relative_error(loss.detach(), truth.loss) < 1e-12
    for parameter, gradient in zip(sae.weights, truth.gradients, strict=True):
        assert parameter.grad is not None and relative_error(parameter.grad, gradient) < 1e-12


def test_backward_agrees_with_finite_differences() -> None:
    weights, x = random_weights(12, 4, 0), unit_rows(4, 4, 1)
    encoder = partial(encode, select=partial(batch_top_k, k=4))

    def loss(*parameters: Tensor) -> Tensor:
        return differentiable_loss(sparse_objective(x, Weights(*parameters), encoder), Weights(*parameters))

    assert torch.autograd.gradcheck(loss, [w.clone().requires_grad_() for w in weights])


def test_the_threshold_is_a_running_mean_of_the_smallest_activation_kept() -> None:
    sae = randomized(BatchTopK(**SETTINGS))
    expected = None
    for seed in range(3):
        values = sae.objective(unit_rows(50, 12, seed, torch.float32)).codes.values
        smallest = values[values > 0].min()
        expected = smallest if expected is None else 0.9 * expected + 0.1 * smallest
    torch.testing.assert_close(sae.threshold, expected)
    before = sae.threshold.clone()
    with torch.no_grad():
        sae.b_enc.fill_(-100)
    sae.objective(unit_rows(50, 12, 0, torch.float32))  # nothing fires
    assert torch.equal(sae.threshold, before)


def test_ranks_agree_on_the_threshold_whatever_their_part_of_the_batch() -> None:
    saes = [randomized(BatchTopK(**SETTINGS)) for _ in range(2)]
    parts = unit_rows(50, 12, 1, torch.float32).split(25)
    smallest = torch.stack([sae.objective(x).codes.values.min() for sae, x in zip(saes, parts, strict=True)])
    assert smallest[0] != smallest[1]
    again = [randomized(BatchTopK(**SETTINGS)) for _ in range(2)]
    for sae, x in zip(again, parts, strict=True):
        sae.objective(x, average=lambda value: smallest.mean() if value in smallest else value)
    assert torch.equal(again[0].threshold, again[1].threshold) and again[0].threshold == smallest.mean()


def test_codes_at_inference_depend_on_no_other_token() -> None:
    sae, x = randomized(BatchTopK(**SETTINGS)), unit_rows(50, 12, 1, torch.float32)
    sae.threshold.fill_(0.4)
    together = sae.encode_unit(x).dense()
    alone = torch.cat([sae.encode_unit(row[None]).dense() for row in x])
    torch.testing.assert_close(together, alone)
    assert (together[together > 0] > sae.threshold).all() and (together > 0).any()
    with torch.no_grad():
        pre = sae.pre_activations(x)
    torch.testing.assert_close(together, pre * (pre > sae.threshold))


def test_dead_latents_add_the_auxiliary_loss() -> None:
    x, dead = unit_rows(50, 12, 1, torch.float32), torch.arange(60) % 3 == 0
    plain = randomized(BatchTopK(**SETTINGS)).objective(x, dead).loss
    assert randomized(BatchTopK(**{**SETTINGS, "aux_k": 8})).objective(x, dead).loss > plain


@pytest.mark.parametrize(
    ("field", "value"), [("k", 0), ("k", 61), ("threshold_rate", 0.0), ("threshold_rate", 1.5), ("aux_k", 61)]
)
def test_impossible_settings_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(Refused, match=f"^{field}={value}: "):
        BatchTopK(**{**SETTINGS, field: value})
