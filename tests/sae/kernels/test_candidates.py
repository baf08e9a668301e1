from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from bisae.runtime import device
from bisae.runtime.errors import Refused
from bisae.sae import Codes, ReLUL1, TopK
from bisae.sae.encoder import Weights, encode, top_k
from bisae.sae.kernels import candidates as candidates_module
from bisae.sae.kernels.candidates import Candidates, select
from tests.sae.dense_reference import dense_objective, random_weights, relative_error, unit_rows

K = 8


@pytest.fixture
def weights() -> Weights:
    return random_weights(600, 64, seed=0, dtype=torch.float32)


@pytest.fixture
def centred() -> Tensor:
    return unit_rows(400, 64, seed=1, dtype=torch.float32)


def kept(codes: Codes) -> list[set[int]]:
    values, indices = codes.as_fixed()
    return [set(i[v > 0].tolist()) for v, i in zip(values, indices, strict=True)]


def assert_exact(encoder: Candidates, centred: Tensor, weights: Weights) -> None:
    found = encoder(centred, weights)
    expected = encode(centred, weights, partial(top_k, k=K))
    assert kept(found) == kept(expected)
    torch.testing.assert_close(found.dense(), expected.dense(), atol=1e-6, rtol=1e-6)


def truth(centred: Tensor, weights: Weights) -> Tensor:
    """The pre-activations in float64."""
    return centred.double() @ weights.W_enc.double().T + weights.b_enc.double()


def assert_kept_as_in_float64(codes: Codes, centred: Tensor, weights: Weights) -> None:
    """The k largest, up to ties in float64, and what is positive of them."""
    exact = truth(centred, weights)
    values, indices = codes.as_fixed()
    found = exact.gather(1, indices).relu().sort(1)[0]
    torch.testing.assert_close(found, exact.topk(K, dim=1)[0].relu().sort(1)[0], atol=0, rtol=1e-13)
    assert all(len(set(row)) == K for row in indices.tolist())
    torch.testing.assert_close(values.double(), exact.gather(1, indices).relu(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("per_token", [K, K + 4, 4 * K, 8 * K])
def test_any_number_of_candidates_keeps_the_latents_of_exact_products(
    per_token: int, centred: Tensor, weights: Weights
) -> None:
    encoder = Candidates(K, per_token)
    assert_kept_as_in_float64(encoder(centred, weights), centred, weights)
    assert encoder.tokens == 400
    # The bound does its work: none is accepted on the candidates alone, with enough of them nearly all.
    assert encoder.not_accepted == 400 if per_token == K else encoder.not_accepted < 400


def test_accepting_without_the_bound_would_be_wrong(
    centred: Tensor, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check is for: on these data bf16 alone keeps other latents."""
    monkeypatch.setattr(candidates_module, "UNIT", -2.0)
    with pytest.raises(AssertionError):
        assert_kept_as_in_float64(Candidates(K, K)(centred, weights), centred, weights)


def rows_of_kind(kind: str, weights: Weights) -> tuple[Tensor, Weights]:
    """Inputs and weights on which a bound with a gap would fail."""
    generator = torch.Generator().manual_seed(5)
    x, W, bias = unit_rows(200, 64, seed=6, dtype=torch.float32), weights.W_enc.clone(), weights.b_enc.clone()
    signs = torch.randn(64, generator=generator).sign()
    if kind == "ties":
        W[200:400] = W[:200]
        W[400:] = W[:200]
        bias[200:400] = bias[400:] = bias[:200]
    elif kind == "near ties":
        W[200:400] = W[:200] * (1 + 2**-23)
        W[400:] = W[:200] * (1 - 2**-23)
        bias[200:400] = bias[400:] = bias[:200]
    elif kind == "worst rounding":  # each number lies halfway between two of bf16, and all errors add up
        x = (1 + 2**-8) * signs * (1 + torch.randint(0, 3, (200, 1), generator=generator).float())
        W = (1 + 2**-8) * signs * (1 + 0.01 * torch.rand(600, 1, generator=generator))
    elif kind == "cancellation":
        x[:, 32:] = -x[:, :32] * (1 + 1e-4 * torch.rand(200, 32, generator=generator))
        W[:, 32:] = W[:, :32]
        bias *= 1e-5
    elif kind == "zero rows":
        x[::2], W[::3] = 0, 0
    elif kind == "huge":
        x[::3], W[::5] = x[::3] * 1e15, W[::5] * 1e15
    elif kind == "overflow":
        x[::3], W[::5] = x[::3] * 1e25, W[::5] * 1e25
    elif kind == "subnormal":
        x, W, bias = x * 2**-70, W * 2**-70, bias * 0
        x[::3] *= 2**-40
    elif kind == "long encoder rows":
        W *= 10 ** (4 * torch.rand(600, 1, generator=generator) - 2)
    elif kind == "large biases":
        bias = 100 * torch.randn(600, generator=generator)
    elif kind == "negative biases":
        bias = -1 - torch.rand(600, generator=generator)
    return x, Weights(W, bias, W, weights.b_pre)


KINDS = ["ties", "near ties", "worst rounding", "cancellation", "zero rows", "huge", "subnormal", "long encoder rows"]


@pytest.mark.parametrize("per_token", [K, 2 * K, 8 * K, 8 * K + 1])
@pytest.mark.parametrize("kind", [*KINDS, "large biases", "negative biases", "overflow"])
def test_latents_are_those_of_exact_products_on_rows_made_to_deceive(
    kind: str, per_token: int, weights: Weights
) -> None:
    x, made = rows_of_kind(kind, weights)
    encoder = Candidates(K, K)
    encoder.per_token = per_token  # the last: more than bf16 proposes, so that float32 does
    codes = encoder(x, made)
    exact = truth(x, made)
    found = exact.gather(1, codes.as_fixed()[1]).sort(1)[0].relu()
    torch.testing.assert_close(found, exact.topk(K, dim=1)[0].sort(1)[0].relu(), atol=0, rtol=1e-12)


@given(
    st.integers(0, 2**32), st.sampled_from([1, 3, 32, 200, 3000]), st.floats(-30, 30), st.floats(-30, 30), st.booleans()
)
def test_no_pre_activation_is_above_its_bound(seed: int, d: int, of_x: float, of_w: float, skewed: bool) -> None:
    """The product of the extended vectors, as the processor rounds it, against exact rational sums in float64."""
    generator = torch.Generator().manual_seed(seed)
    x, W = torch.randn(20, d, generator=generator) * 2**of_x, torch.randn(30, d, generator=generator) * 2**of_w
    if skewed:
        x, W = x**5, W**5
    bias = torch.randn(30, generator=generator) * 2 ** (of_x + of_w)
    left, right, lengths, longest = candidates_module.extended(x, Weights(W, bias, W, x[0]))
    assume((4 * lengths * longest + bias.abs().amax()).isfinite().all())  # else no token is accepted
    bounds = (left @ right.T).double()
    exact = x.double() @ W.double().T + bias.double()
    assert (exact <= bounds + candidates_module.UNIT * bounds.abs() + candidates_module.TINY).all()


def as_matrix_units(left: Tensor, right: Tensor, block: int, extra: int) -> Tensor:
    """`left @ right.T` as the papers found NVIDIA's matrix units to compute it (docs/speed.md), in float64.

    A block of exact products and the sum so far are cut off at the last digit of the largest exponent, `extra` bits
    below float32's, added, and the sum is cut off to float32.
    """

    def exponent(values: Tensor) -> Tensor:  # 2**exponent <= |value|
        return torch.where(values == 0, -10_000, torch.frexp(values)[1] - 1)

    def cut(values: Tensor, last: Tensor) -> Tensor:
        unit = torch.exp2(last.clamp_min(-1000).double())
        return (values / unit).trunc() * unit

    x, w, total = left.double(), right.double(), torch.zeros(len(left), len(right), dtype=torch.float64)
    for first in range(0, x.shape[1], block):
        some = slice(first, first + block)
        terms = torch.cat([x[:, None, some] * w[None, :, some], total[..., None]], 2)
        of_products = exponent(x[:, None, some]) + exponent(
            w[None, :, some]
        )  # of the factors: the product may be larger
        exponents = torch.cat([of_products, exponent(total)[..., None]], 2)
        grid = exponents.amax(2, keepdim=True) - 23 - extra
        added = cut(terms, grid).sum(2)
        total = cut(added, exponent(added) - 23)
    return total


@pytest.mark.parametrize(("block", "extra"), [(4, 0), (8, 1), (16, 2)], ids=["V100", "A100", "H100"])
@pytest.mark.parametrize("kind", ["plain", "cancellation", "large biases"])
def test_no_pre_activation_is_above_its_bound_as_matrix_units_compute_it(
    kind: str, block: int, extra: int, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, made = rows_of_kind(kind, weights)
    x = x[:30]
    left, right, *_ = candidates_module.extended(x, made)
    total, sizes = as_matrix_units(left, right, block, extra), left.double().abs() @ right.double().abs().T
    lost = (total - left.double() @ right.double().T).abs() / sizes
    assert 0 < lost.max() <= candidates_module._gamma(left.shape[1])
    bounds = total.bfloat16().double()
    assert (truth(x, made) <= bounds + candidates_module.UNIT * bounds.abs() + candidates_module.TINY).all()

    computed = []
    monkeypatch.setattr(
        torch, "mm", lambda a, b, out: computed.append(out.copy_(as_matrix_units(a, b.T, block, extra)))
    )
    assert_kept_as_in_float64(Candidates(K, 2 * K)(x, made), x, made)
    assert len(computed) == 1


def test_sums_that_lose_more_than_matrix_units_would_break_the_bound(centred: Tensor, weights: Weights) -> None:
    """What `SUM` is for: with sums of fewer digits than float32's the same check fails."""
    weights = weights._replace(W_enc=weights.W_enc.bfloat16().float(), b_enc=0 * weights.b_enc)
    left, right, *_ = candidates_module.extended(centred[:60].bfloat16().float(), weights)
    bounds = as_matrix_units(left, right, 4, -12).bfloat16().double()
    exact = truth(centred[:60].bfloat16().float(), weights)
    assert (exact > bounds + candidates_module.UNIT * bounds.abs() + candidates_module.TINY).any()


def test_where_a_gpu_may_add_in_bf16_nothing_is_proved_and_training_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul, gpu = torch.backends.cuda.matmul, torch.device("cuda")
    assert device.sums_in_float32(torch.device("cpu"))
    try:
        matmul.allow_bf16_reduced_precision_reduction = True
        assert not device.sums_in_float32(gpu)
        device.sum_in_float32()
        assert device.sums_in_float32(gpu)
    finally:
        matmul.allow_bf16_reduced_precision_reduction = True
    monkeypatch.setattr(candidates_module, "sums_in_float32", lambda _: False)
    encoder = Candidates(K, 2 * K)
    encoder(unit_rows(10, 64, seed=1, dtype=torch.float32), random_weights(600, 64, seed=0, dtype=torch.float32))
    assert not encoder.ran


def test_the_bound_is_no_looser_than_twice_the_roundings_it_stands_for(centred: Tensor, weights: Weights) -> None:
    left, right, *_ = candidates_module.extended(centred, weights)
    excess = (left @ right.T).double() - truth(centred, weights)
    assert (excess <= 2 * 2.5 * 2**-8 * (1 + weights.b_enc.double().abs())).all()  # unit rows: x~, w~ and the result


def test_latents_nearly_equal_in_bf16_are_told_apart(centred: Tensor, weights: Weights) -> None:
    weights.W_enc[300:] = weights.W_enc[:300] * (1 + 1e-4)
    encoder = Candidates(K - 1, 4 * (K - 1))
    found = encoder(centred, weights)
    expected = encode(centred, weights, partial(top_k, k=K - 1))
    assert kept(found) == kept(expected)


def test_fewer_than_k_positive(centred: Tensor, weights: Weights) -> None:
    weights.b_enc.sub_(2.4)
    assert min(map(len, kept(encode(centred, weights, partial(top_k, k=K))))) < K
    assert_exact(Candidates(K, 4 * K), centred, weights)


def test_non_finite_inputs_reach_the_loss(centred: Tensor, weights: Weights) -> None:
    centred[3] = torch.nan
    assert Candidates(K, 4 * K)(centred, weights).values.isnan().any()


def test_many_not_accepted_raise_the_candidates_until_float32_proposes_them(centred: Tensor, weights: Weights) -> None:
    weights.W_enc[:] = weights.W_enc[0]  # all tie, so nothing can be accepted
    weights.b_enc[:] = 10
    encoder, seen = Candidates(K, 2 * K), []
    for _ in range(6):
        assert encoder.per_token is not None
        seen.append(encoder.per_token)
        encoder(centred, weights)
    assert seen == [16, 24, 36, 54, 81, 81]
    assert encoder.ran == ["bf16", "float32"]
    assert encoder.share() == 1.0 and encoder.share() is None


def test_the_bits_are_the_same_whatever_proposes_the_candidates(centred: Tensor, weights: Weights) -> None:
    """So a resumed job, and ranks that have come to other numbers of candidates, have the same codes."""
    found = []
    for per_token in (K, 2 * K, 8 * K, 8 * K + 1):
        encoder = Candidates(K, K)
        encoder.per_token = per_token
        found.append(encoder(centred, weights).dense())
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_float32_proposes_so_well_that_few_tokens_need_float64(centred: Tensor, weights: Weights) -> None:
    *_, accepted = select(centred, weights, K, K + 8, "float32")
    assert accepted.float().mean() > 0.99
    *_, accepted = select(centred, weights, K, K, "float32")  # the k-th itself is the limit of the others
    assert not accepted.any()


def with_candidates(wanted: int | str, latents: int = 600) -> TopK:
    sae = TopK(64, latents, K)
    sae.set_candidates(wanted)
    return sae


def test_gradients_equal_dense_autograd() -> None:
    sae = with_candidates(32)
    x = unit_rows(400, 64, seed=1, dtype=torch.float32)
    loss, codes, _ = sae.objective(x)
    loss.backward()
    truth = dense_objective(x.double(), Weights(*(w.detach().double() for w in sae.weights)), codes.dense() > 0)
    for parameter, gradient in zip(sae.weights, truth.gradients, strict=True):
        assert parameter.grad is not None
        assert relative_error(parameter.grad, gradient) < 1e-6
    assert 0 <= sae.extra_metrics()["not_accepted"] < 1


@pytest.mark.parametrize("product", ["float64", "autocast", "medium"])
def test_other_precisions_take_the_plain_product(product: str, centred: Tensor, weights: Weights) -> None:
    if product == "float64":
        centred, weights = centred.double(), Weights(*(w.double() for w in weights))
    encoder = Candidates(K, 4 * K)
    torch.set_float32_matmul_precision("medium" if product == "medium" else "highest")
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=product == "autocast"):
            assert torch.equal(encoder(centred, weights).dense(), encode(centred, weights, partial(top_k, k=K)).dense())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert encoder.tokens == 0 and not encoder.ran


AMD, INTEL = "AMD EPYC", "Intel(R) Xeon(R) Processor"


@pytest.mark.parametrize(
    ("flags", "latents", "tokens", "left"),
    [
        ({"avx512_bf16": True, "cpu_name": AMD}, 2**14, 1024, 16),
        ({"avx512_bf16": True, "cpu_name": AMD}, 2**14, 1000, 0),
        ({"avx512_bf16": False, "cpu_name": AMD}, 2**14, 1024, 0),
        ({"avx512_bf16": True, "cpu_name": INTEL}, 2**14, 1024, 0),  # slower there than float32
        ({"amx_bf16": True, "cpu_name": INTEL}, 2**14, 1024, 16),
        ({"avx512_bf16": True, "cpu_name": AMD}, 2**13, 1024, 0),  # too few numbers in a matrix
        ({}, 2**14, 1024, 0),
    ],
)
def test_the_processor_and_the_sizes_alone_decide_whether_candidates_are_used(
    flags: dict[str, Any], latents: int, tokens: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    sae = TopK(64, latents, K)
    assert sae.extra_state() == {"candidates": None, "proposed_by": []}
    sae.objective(unit_rows(tokens, 64, seed=1, dtype=torch.float32))
    assert sae.extra_state() == {"candidates": left, "proposed_by": ["bf16"] if left else []}
    assert ("candidates" in sae.computed) == bool(left)
    plain = with_candidates("none", latents)
    plain.objective(unit_rows(4, 64, seed=1, dtype=torch.float32))
    assert plain.extra_state()["candidates"] == 0 and not plain.extra_metrics()


def test_a_job_that_goes_on_keeps_its_candidates_and_one_that_had_none_has_none() -> None:
    sae, again, older = (with_candidates(10) for _ in range(3))
    sae.objective(unit_rows(400, 64, seed=1, dtype=torch.float32))
    again.load_extra_state(sae.extra_state())
    assert again.extra_state() == sae.extra_state() and again.computed == sae.computed != older.computed
    older.load_extra_state({})  # of a version in which TopK had none
    assert older.encoder.per_token == 0


@pytest.mark.parametrize("wrong", [3, 33])
def test_wrong_numbers_of_candidates_are_refused(wrong: int) -> None:
    with pytest.raises(Refused, match="^candidates="):
        TopK(16, 40, k=4).set_candidates(wrong)
    with pytest.raises(Refused, match="ReLUL1 has none"):
        ReLUL1(16, 40, l1=0.1).set_candidates(8)
