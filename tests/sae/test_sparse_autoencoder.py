import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import pytest
import torch

from bisae.runtime.errors import Refused
from bisae.sae import BatchTopK, JumpReLU, Matryoshka, ReLUL1, SparseAutoencoder, TopK, Weights
from bisae.sae.objective import aux_k_loss, relu_l1_objective, topk_objective
from bisae.sae.sparse_autoencoder import geometric_median
from tests.sae.dense_reference import dense_objective, random_weights, relative_error, unit_rows

SAE = TypeVar("SAE", bound=SparseAutoencoder)


def randomized(sae: SAE, seed: int = 0) -> SAE:
    with torch.no_grad():
        for parameter, value in zip(sae.weights, random_weights(sae.latents, sae.d_model, seed), strict=True):
            parameter.copy_(value)
    return sae


AVERAGE: dict[str, Any] = {"k": 4, "threshold_rate": 0.1, "seed": 0, "aux_k": 8, "aux_coefficient": 0.1}
KINDS: dict[str, Callable[[], SparseAutoencoder]] = {
    "topk": lambda: TopK(12, 60, k=4),
    "relu_l1": lambda: ReLUL1(12, 60, l1=0.1, encoder_bias=True),
    "batch_topk": lambda: BatchTopK(12, 60, **AVERAGE),
    "matryoshka": lambda: Matryoshka(12, 60, groups="1/4+3/4", **AVERAGE),
    "jump_relu": lambda: JumpReLU(12, 60, l0=0.01, initial_threshold=0.1, bandwidth=0.1, seed=0),
}


@pytest.fixture(params=["topk", "relu_l1"])
def sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    return randomized(KINDS[request.param]())


@pytest.fixture(params=KINDS)
def any_sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    return randomized(KINDS[request.param]())


def activations(tokens: int = 50, d_model: int = 12) -> torch.Tensor:
    return 30 * torch.randn(tokens, d_model, generator=torch.Generator().manual_seed(9))


def test_the_encoder_starts_as_the_transposed_unit_norm_decoder() -> None:
    sae = TopK(12, 60, k=4)
    assert torch.equal(sae.W_enc, sae.W_dec)
    assert sae.W_enc.data_ptr() != sae.W_dec.data_ptr()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(60))
    assert sae.b_enc.abs().max() == 0 and sae.b_pre.abs().max() == 0


def test_the_start_depends_on_the_seed_and_on_no_other_generator() -> None:
    first = TopK(12, 60, k=4, seed=3)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second = TopK(12, 60, k=4, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.W_dec, second.W_dec)
    assert not torch.equal(first.W_dec, TopK(12, 60, k=4, seed=4).W_dec)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_divided_by_their_own_norm(dtype: torch.dtype) -> None:
    activation = activations().to(dtype)
    x, norm = TopK(12, 60, k=4).normalize(activation)
    assert x.dtype == norm.dtype == torch.float32
    torch.testing.assert_close(x.norm(dim=1), torch.ones(50))
    torch.testing.assert_close(x * norm[:, None], activation.float())


def test_a_zero_activation_stays_zero(any_sae: SparseAutoencoder) -> None:
    reconstruction = any_sae.reconstruct(torch.zeros(2, 12))
    assert reconstruction.norm.tolist() == [0, 0]
    assert torch.isfinite(reconstruction.x_hat).all()
    assert reconstruction.activation.abs().max() == 0


def test_the_codes_do_not_depend_on_the_scale_of_the_activation(any_sae: SparseAutoencoder) -> None:
    torch.testing.assert_close(any_sae.encode(activations()).dense(), any_sae.encode(4 * activations()).dense())


def test_reconstruction_is_the_decoded_code_in_both_spaces(any_sae: SparseAutoencoder) -> None:
    activation = activations()
    reconstruction = any_sae.reconstruct(activation)
    torch.testing.assert_close(reconstruction.x_hat, reconstruction.codes.dense() @ any_sae.W_dec + any_sae.b_pre)
    torch.testing.assert_close(reconstruction.activation, reconstruction.x_hat * activation.norm(dim=1, keepdim=True))


def test_training_and_inference_see_the_same_codes(sae: SparseAutoencoder) -> None:
    x, _ = sae.normalize(activations())
    loss, codes, x_hat = sae.objective(x)
    assert torch.equal(codes.dense(), sae.encode_unit(x).dense())
    torch.testing.assert_close(x_hat, sae.decode(codes).detach())
    penalty = sae.l1 * codes.dense().sum(1).mean() if isinstance(sae, ReLUL1) else 0
    torch.testing.assert_close(loss.detach(), ((x - x_hat) ** 2).sum(1).mean() + penalty)


def test_backward_fills_the_gradients_of_the_pure_function(sae: SparseAutoencoder) -> None:
    x, _ = sae.normalize(activations())
    loss, codes, _ = sae.objective(x)
    loss.backward()
    truth = dense_objective(x, sae.weights, codes.dense() > 0, sae.l1 if isinstance(sae, ReLUL1) else 0.0)
    for parameter, gradient in zip(sae.weights, truth.gradients, strict=True):
        assert parameter.grad is not None and relative_error(parameter.grad, gradient) < 1e-6


def test_dead_latents_add_the_auxiliary_loss_if_configured() -> None:
    x = unit_rows(50, 12, 1, torch.float32)
    dead = torch.arange(60) % 3 == 0
    with_aux, without = randomized(TopK(12, 60, k=4, aux_k=8, aux_coefficient=0.5)), randomized(TopK(12, 60, k=4))
    plain = without.objective(x, dead)
    assert plain.loss == topk_objective(x, without.weights, 4).loss
    assert with_aux.objective(x).loss == plain.loss
    aux = aux_k_loss(x, plain.x_hat, with_aux.weights, dead, 8, 0.5)
    assert aux > 0
    torch.testing.assert_close(with_aux.objective(x, dead).loss, plain.loss + aux)


def test_a_few_steps_of_adam_lower_the_loss_and_keep_the_decoder_unit(any_sae: SparseAutoencoder) -> None:
    x, _ = any_sae.normalize(activations())
    adam = torch.optim.Adam(any_sae.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        adam.zero_grad()
        loss = any_sae.objective(x).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(any_sae.parameters(), 1.0)
        adam.step()
        any_sae.normalize_decoder()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(any_sae.W_dec.norm(dim=1), torch.ones(60))


def test_a_state_that_was_saved_goes_on_bit_by_bit(any_sae: SparseAutoencoder) -> None:
    def steps(sae: SparseAutoencoder, adam: torch.optim.Adam, seeds: range) -> None:
        for seed in seeds:
            adam.zero_grad()
            sae.objective(unit_rows(40, 12, seed, torch.float32), torch.arange(60) < 9).loss.backward()
            adam.step()
            sae.normalize_decoder()

    adam = torch.optim.Adam(any_sae.parameters(), lr=1e-2)
    steps(any_sae, adam, range(3))
    kind: Any = type(any_sae)
    other = kind(**any_sae.arguments)
    other.load_state_dict(any_sae.state_dict())
    other_adam = torch.optim.Adam(other.parameters(), lr=1e-2)
    other_adam.load_state_dict(deepcopy(adam.state_dict()))
    for sae, optimizer in ((any_sae, adam), (other, other_adam)):
        steps(sae, optimizer, range(3, 6))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in any_sae.state_dict().items())


def test_normalizing_the_decoder_keeps_directions() -> None:
    sae = randomized(TopK(12, 60, k=4))
    with torch.no_grad():
        sae.W_dec.mul_(torch.linspace(0.1, 7, 60)[:, None])
    before = sae.W_dec.detach().clone()
    sae.normalize_decoder()
    torch.testing.assert_close(sae.W_dec.detach(), torch.nn.functional.normalize(before, dim=1))


def test_b_pre_starts_at_the_geometric_median() -> None:
    sae, x = TopK(12, 60, k=4), unit_rows(50, 12, 1, torch.float32)
    sae.initialize_b_pre(x)
    assert torch.equal(sae.b_pre, geometric_median(x))
    assert sae.b_pre.requires_grad


def test_relu_l1_without_encoder_bias_keeps_it_zero() -> None:
    sae, x = ReLUL1(12, 60, l1=0.1), unit_rows(50, 12, 1, torch.float32)
    assert relu_l1_objective(x, sae.weights, 0.1).gradients.b_enc.abs().max() > 0
    sae.objective(x).loss.backward()
    torch.optim.SGD(sae.parameters(), lr=1.0).step()
    assert sae.b_enc.abs().max() == 0
    assert sae.W_enc.grad is not None


def test_under_bf16_autocast_a_step_trains_float32_weights(any_sae: SparseAutoencoder) -> None:
    x, _ = any_sae.normalize(activations())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = any_sae.objective(x).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(w.grad is not None and w.grad.dtype == torch.float32 for w in any_sae.weights)


def test_weights_are_the_parameters_themselves() -> None:
    sae = TopK(12, 60, k=4)
    assert {name for name, _ in sae.named_parameters()} == set(Weights._fields)
    assert sae.weights.W_enc is sae.W_enc and sae.weights.b_pre is sae.b_pre


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("d_model", {"d_model": 0}),
        ("latents", {"latents": 0}),
        ("k", {"k": 0}),
        ("k", {"k": 61}),
        ("aux_k", {"aux_k": -1}),
        ("aux_k", {"aux_k": 61}),
        ("aux_coefficient", {"aux_coefficient": -0.1}),
    ],
)
def test_impossible_topk_settings_are_refused_by_name(field: str, arguments: dict[str, int]) -> None:
    with pytest.raises(Refused, match=f"^{field}=") as caught:
        TopK(**{"d_model": 12, "latents": 60, "k": 4} | arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("l1", [-1.0, float("nan"), float("inf")])
def test_an_impossible_l1_is_refused_by_name(l1: float) -> None:
    with pytest.raises(Refused, match="^l1="):
        ReLUL1(12, 60, l1=l1)


def test_importing_the_package_imports_no_trainer_and_no_lm_library() -> None:
    check = (
        "import bisae.sae, sys; print({'lightning', 'hydra', 'transformers'} & {m.split('.')[0] for m in sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
