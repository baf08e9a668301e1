from typing import Any

import pytest
import torch
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import JumpReLU
from bisae.sae.architectures.jump_relu import jump_relu_objective
from bisae.sae.encoder import Weights
from bisae.sae.objective import differentiable_loss
from tests.sae.dense_reference import dense_pre_activations, random_weights, relative_error, unit_rows
from tests.sae.test_sparse_autoencoder import randomized

SETTINGS: dict[str, Any] = {
    "d_model": 12,
    "latents": 60,
    "l0": 0.1,
    "initial_threshold": 0.3,
    "bandwidth": 0.2,
    "seed": 0,
}


class Jump(torch.autograd.Function):
    """(pre where pre > threshold, how many), with the paper's gradients on dense matrices."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold), (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (pre, threshold), (grad_z, grad_count) = ctx.saved_tensors, gradients
        kernel = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre) / ctx.bandwidth
        return grad_z * (pre > threshold), -(kernel * (threshold * grad_z + grad_count)).sum(0), None


@pytest.mark.parametrize("threshold", [0.3, 1.0])  # above and below the density of dense products
def test_loss_and_gradients_equal_the_papers_on_dense_matrices(threshold: float) -> None:
    sae, x = randomized(JumpReLU(**SETTINGS).double()), unit_rows(50, 12, 1)
    with torch.no_grad():
        sae.threshold.copy_(threshold + 0.2 * torch.rand(60, generator=torch.Generator().manual_seed(0)))
    loss, codes, x_hat = sae.objective(x)
    loss.backward()

    leaves = Weights(*(w.detach().clone().requires_grad_() for w in sae.weights))
    thresholds = sae.threshold.detach().clone().requires_grad_()
    z, fires = Jump.apply(dense_pre_activations(x, leaves), thresholds, 0.2)
    expected = z @ leaves.W_dec + leaves.b_pre
    truth = ((x - expected) ** 2).sum(1).mean() + 0.1 * fires.sum(1).mean()
    assert torch.equal(codes.dense() > 0, z > 0) and torch.equal(codes.l0(), fires.sum(1).long())
    assert relative_error(loss.detach(), truth.detach()) < 1e-12
    assert relative_error(x_hat, expected.detach()) < 1e-12
    truth.backward()
    for own, leaf in zip([*sae.weights, sae.threshold], [*leaves, thresholds], strict=True):
        assert own.grad is not None and leaf.grad is not None and leaf.grad.abs().max() > 0
        assert relative_error(own.grad, leaf.grad) < 1e-12


def test_all_but_the_threshold_agrees_with_finite_differences() -> None:
    weights, x, threshold = random_weights(12, 4, 0), unit_rows(4, 4, 1), torch.full((12,), 0.3, dtype=torch.float64)

    def loss(*parameters: Tensor) -> Tensor:
        found, _ = jump_relu_objective(x, Weights(*parameters), threshold, 0.1, 0.2)
        return differentiable_loss(found, Weights(*parameters))

    assert torch.autograd.gradcheck(loss, [w.clone().requires_grad_() for w in weights])


def test_training_and_inference_see_the_same_codes() -> None:
    sae, x = randomized(JumpReLU(**SETTINGS)), unit_rows(50, 12, 1, torch.float32)
    codes = sae.objective(x).codes
    assert torch.equal(codes.dense(), sae.encode_unit(x).dense()) and codes.l0().float().mean() > 1


def test_a_threshold_below_zero_lets_nothing_negative_through_and_comes_back() -> None:
    sae, x = JumpReLU(**{**SETTINGS, "initial_threshold": 0.0}), unit_rows(50, 12, 1, torch.float32)
    with torch.no_grad():
        sae.threshold.fill_(-0.01)
    assert sae.encode_unit(x).values.min() > 0
    sae.objective(x).loss.backward()
    assert sae.threshold.grad is not None and (sae.threshold.grad < 0).all()


def test_a_higher_price_of_firing_makes_fewer_latents_fire() -> None:
    x, firing = unit_rows(200, 12, 1, torch.float32), []
    for l0 in (0.0, 0.05):
        sae = JumpReLU(**{**SETTINGS, "l0": l0, "initial_threshold": 0.1})
        adam = torch.optim.Adam(sae.parameters(), lr=1e-2)
        for _ in range(60):
            adam.zero_grad()
            sae.objective(x).loss.backward()
            adam.step()
            sae.normalize_decoder()
        firing.append(sae.encode_unit(x).l0().float().mean().item())
    assert firing[1] < 0.5 * firing[0] and firing[1] > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("l0", -1.0), ("l0", float("nan")), ("initial_threshold", -0.1), ("bandwidth", 0.0), ("bandwidth", float("inf"))],
)
def test_impossible_settings_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(Refused, match=f"^{field}={value}: "):
        JumpReLU(**{**SETTINGS, field: value})
