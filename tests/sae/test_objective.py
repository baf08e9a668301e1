import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bisae.sae import objective as module
from bisae.sae.encoder import Weights
from bisae.sae.kernels.products import DenseProducts, SparseProducts
from bisae.sae.objective import Objective, aux_k_loss, differentiable_loss, relu_l1_objective, topk_objective
from tests.sae.dense_reference import dense_objective, dense_pre_activations, random_weights, relative_error, unit_rows


def dense_aux_k(x: Tensor, x_hat: Tensor, weights: Weights, dead: Tensor, aux_k: int, coefficient: float) -> Tensor:
    """Appendix A.2 with dense matrices: all other latents masked out."""
    pre = dense_pre_activations(x, weights._replace(b_pre=weights.b_pre.detach())).relu()
    pre = pre.masked_fill(~dead, -1)
    chosen = torch.zeros_like(pre).scatter(1, pre.topk(min(aux_k, int(dead.sum())))[1], 1)
    e = (x - x_hat).detach()
    e_hat = (pre * chosen) @ weights.W_dec
    return coefficient * ((e - e_hat) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()


def leaves(seed: int, dtype: torch.dtype = torch.float64) -> Weights:
    return Weights(*(w.requires_grad_() for w in random_weights(60, 12, seed, dtype)))


def some_dead() -> Tensor:
    return torch.arange(60) % 4 == 3


@pytest.mark.parametrize("aux_k", [1, 6, 15, 40])  # 15 are dead
def test_loss_and_gradients_equal_the_plain_dense_formula(aux_k: int) -> None:
    x, x_hat, dead = unit_rows(80, 12, 1), 0.3 * unit_rows(80, 12, 2), some_dead()
    found_at, expected_at = leaves(0), leaves(0)
    found = aux_k_loss(x, x_hat, found_at, dead, aux_k, coefficient=0.5)
    expected = dense_aux_k(x, x_hat, expected_at, dead, aux_k, coefficient=0.5)
    found.backward()
    expected.backward()
    assert relative_error(found.detach(), expected.detach()) < 1e-12
    for name in ("W_enc", "b_enc", "W_dec"):
        gradient = getattr(found_at, name).grad
        assert relative_error(gradient, getattr(expected_at, name).grad) < 1e-12, name
        assert gradient[~dead].abs().max() == 0
    assert found_at.b_pre.grad is None


def test_the_coefficient_is_that_of_the_paper() -> None:
    x, x_hat, dead = unit_rows(80, 12, 1), 0.3 * unit_rows(80, 12, 2), some_dead()
    whole = aux_k_loss(x, x_hat, leaves(0), dead, 4, coefficient=1.0)
    torch.testing.assert_close(aux_k_loss(x, x_hat, leaves(0), dead, 4), whole / 32)


def test_nothing_dead_costs_nothing() -> None:
    x = unit_rows(8, 12, 1)
    assert aux_k_loss(x, 0.5 * x, leaves(0), torch.zeros(60, dtype=torch.bool), 4) == 0


def test_a_residual_without_variance_gives_zero_and_no_nan() -> None:
    x, weights = unit_rows(8, 12, 1), leaves(0)
    loss = aux_k_loss(x, x.clone(), weights, some_dead(), 4)
    loss.backward()
    assert loss == 0
    assert weights.W_enc.grad is not None and weights.W_enc.grad.abs().max() == 0


def test_it_runs_under_bf16_autocast() -> None:
    x, x_hat, weights = unit_rows(80, 12, 1).float(), 0.3 * unit_rows(80, 12, 2).float(), leaves(0, torch.float32)
    exact = aux_k_loss(x, x_hat, weights, some_dead(), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = aux_k_loss(x, x_hat, weights, some_dead(), 4)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert 0 < relative_error(rounded.detach(), exact.detach()) < 1e-2


def kept_mask(objective: Objective) -> Tensor:
    return objective.codes.dense() > 0


def assert_equals_dense(found: Objective, x: Tensor, weights: Weights, tolerance: float, l1: float = 0.0) -> None:
    """Compare with float64 dense autograd, the selection taken from `found`."""
    expected = dense_objective(x.double(), Weights(*(w.double() for w in weights)), kept_mask(found), l1)
    assert relative_error(found.loss, expected.loss) < tolerance
    assert relative_error(found.x_hat, expected.x_hat) < tolerance
    for name, gradient, truth in zip(Weights._fields, found.gradients, expected.gradients, strict=True):
        assert relative_error(gradient, truth) < tolerance, name
        assert gradient.dtype == x.dtype


@pytest.fixture(params=[SparseProducts, DenseProducts])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forces each way of computing the products, whatever the density."""
    monkeypatch.setattr(module, "products_of", request.param)


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
class TestAgainstDenseAutograd:
    def test_topk(self, dtype: torch.dtype, tolerance: float) -> None:
        weights, x = random_weights(96, 24, 0, dtype), unit_rows(200, 24, 1, dtype)
        found = topk_objective(x, weights, k=5)
        assert found.codes.l0().unique().tolist() == [5]
        truth = torch.zeros(200, 96, dtype=torch.bool)
        truth.scatter_(1, dense_pre_activations(x, weights).topk(5)[1], True)
        assert torch.equal(kept_mask(found), truth)
        assert_equals_dense(found, x, weights, tolerance)

    def test_fewer_than_k_positive(self, dtype: torch.dtype, tolerance: float) -> None:
        weights, x = random_weights(96, 24, 2, dtype), unit_rows(200, 24, 3, dtype)
        weights.b_enc.sub_(0.4)
        found = topk_objective(x, weights, k=20)
        assert 0 < found.codes.l0().min() < 20
        assert found.codes.l0().max() < 96
        assert torch.equal(kept_mask(found).sum(1), (dense_pre_activations(x, weights) > 0).sum(1).clamp_max(20))
        assert_equals_dense(found, x, weights, tolerance)

    def test_ties_at_the_threshold(self, dtype: torch.dtype, tolerance: float) -> None:
        weights, x = random_weights(96, 24, 4, dtype), unit_rows(200, 24, 5, dtype)
        weights.W_enc[48:] = weights.W_enc[:48]
        weights.b_enc[48:] = weights.b_enc[:48]
        found = topk_objective(x, weights, k=5)  # odd, so that every token's last place is contested by equals
        assert found.codes.l0().unique().tolist() == [5]
        assert_equals_dense(found, x, weights, tolerance)

    def test_relu_l1(self, dtype: torch.dtype, tolerance: float) -> None:
        weights, x = random_weights(96, 24, 6, dtype), unit_rows(200, 24, 7, dtype)
        found = relu_l1_objective(x, weights, l1=0.3)
        assert torch.equal(kept_mask(found), dense_pre_activations(x, weights) > 0)
        assert_equals_dense(found, x, weights, tolerance, l1=0.3)

    def test_dead_latents_get_exactly_no_gradient(self, dtype: torch.dtype, tolerance: float) -> None:
        weights, x = random_weights(96, 24, 8, dtype), unit_rows(200, 24, 9, dtype)
        found = topk_objective(x, weights, k=5)
        silent = ~found.codes.fired()
        assert silent[:3].all()
        for gradient in (found.gradients.W_enc, found.gradients.b_enc, found.gradients.W_dec):
            assert gradient[silent].abs().max() == 0
            assert gradient[~silent].abs().max() > tolerance


def test_no_latent_at_all_leaves_only_the_bias() -> None:
    weights, x = random_weights(32, 8, 0), unit_rows(10, 8, 1)
    weights.b_enc.sub_(100)
    found = topk_objective(x, weights, k=4)
    assert torch.equal(found.x_hat, weights.b_pre.expand(10, 8))
    torch.testing.assert_close(found.gradients.b_pre, 2 * (weights.b_pre - x.mean(0)))
    assert found.gradients.W_enc.abs().max() == 0


@given(st.integers(1, 12), st.integers(4, 40), st.integers(1, 8), st.integers(0, 2**16), st.data())
def test_any_shape_equals_dense_autograd(
    tokens: int, latents: int, d_model: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, latents))
    weights, x = random_weights(latents, d_model, seed), unit_rows(tokens, d_model, seed + 1)
    found = topk_objective(x, weights, k)
    expected = dense_objective(x, weights, kept_mask(found))
    for gradient, truth in zip(found.gradients, expected.gradients, strict=True):
        torch.testing.assert_close(gradient, truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [2, 12])  # below and above the density of the dense way
def test_backward_agrees_with_finite_differences(k: int) -> None:
    weights, x = random_weights(40, 6, 0), unit_rows(5, 6, 1)

    def loss(*parameters: Tensor) -> Tensor:
        return differentiable_loss(topk_objective(x, Weights(*parameters), k), Weights(*parameters))

    assert torch.autograd.gradcheck(loss, [w.clone().requires_grad_() for w in weights])


def test_backward_of_relu_l1_agrees_with_finite_differences() -> None:
    weights, x = random_weights(12, 6, 2), unit_rows(5, 6, 3)

    def loss(*parameters: Tensor) -> Tensor:
        return differentiable_loss(relu_l1_objective(x, Weights(*parameters), 0.1), Weights(*parameters))

    assert torch.autograd.gradcheck(loss, [w.clone().requires_grad_() for w in weights])


def test_backward_scales_and_accumulates_like_any_loss() -> None:
    parameters = Weights(*(w.requires_grad_() for w in random_weights(40, 6, 0)))
    x = unit_rows(30, 6, 1)
    objective = topk_objective(x, parameters, 4)
    (3 * differentiable_loss(objective, parameters)).backward()
    differentiable_loss(objective, parameters).backward()
    for parameter, gradient in zip(parameters, objective.gradients, strict=True):
        torch.testing.assert_close(parameter.grad, 4 * gradient)


def test_x_gets_no_gradient() -> None:
    parameters = Weights(*(w.requires_grad_() for w in random_weights(40, 6, 0)))
    x = unit_rows(30, 6, 1).requires_grad_()
    differentiable_loss(topk_objective(x, parameters, 4), parameters).backward()
    assert x.grad is None


def test_a_step_is_reproducible_bit_by_bit() -> None:
    weights, x = random_weights(512, 32, 0, torch.float32), unit_rows(300, 32, 1, torch.float32)
    first, second = (topk_objective(x, weights, 8) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.gradients, second.gradients, strict=True))


@pytest.mark.parametrize("k", [2, 12])
def test_under_bf16_autocast_all_but_the_encoder_is_float32(k: int) -> None:
    weights, x = random_weights(96, 24, 0, torch.float32), unit_rows(200, 24, 1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = topk_objective(x, weights, k)
    assert {t.dtype for t in (found.loss, found.x_hat, found.codes.values, *found.gradients)} == {torch.float32}
    z = found.codes.dense()
    # Given the codes, decoding is as exact as in float32 ...
    assert relative_error(found.x_hat, z.double() @ weights.W_dec.double() + weights.b_pre.double()) < 1e-6
    # ... and the codes are those of the product in bf16.
    product = ((x - weights.b_pre).bfloat16() @ weights.W_enc.bfloat16().T).float() + weights.b_enc
    assert torch.equal(z[z > 0], product[z > 0])
