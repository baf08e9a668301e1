from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bisae.runtime.errors import Refused
from bisae.sae import Codes, TopK, load, save
from bisae.sae.architectures import candidate_topk
from bisae.sae.architectures.candidate_topk import Candidates, CandidateTopK
from bisae.sae.encoder import Weights, encode, top_k
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


@pytest.mark.parametrize("per_token", [K, K + 4, 4 * K, 600])
def test_any_number_of_candidates_gives_the_selection_of_float32(
    per_token: int, centred: Tensor, weights: Weights
) -> None:
    encoder = Candidates(K, per_token)
    assert_exact(encoder, centred, weights)
    assert encoder.tokens == 400
    # The bound does its work: none is accepted on the candidates alone, with enough of them nearly all.
    assert encoder.not_accepted == 400 if per_token == K else encoder.not_accepted < 400


def test_accepting_without_the_bound_would_be_wrong(
    centred: Tensor, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check is for: on these data bf16 alone keeps other latents."""
    monkeypatch.setattr(candidate_topk, "SIGMAS", -1e9)
    with pytest.raises(AssertionError):
        assert_exact(Candidates(K, K), centred, weights)


def test_latents_nearly_equal_in_bf16_are_told_apart(centred: Tensor, weights: Weights) -> None:
    weights.W_enc[300:] = weights.W_enc[:300] * (1 + 1e-4)
    encoder = Candidates(K - 1, 4 * K)
    found = encoder(centred, weights)
    expected = encode(centred, weights, partial(top_k, k=K - 1))
    assert kept(found) == kept(expected)


def test_fewer_than_k_positive(centred: Tensor, weights: Weights) -> None:
    weights.b_enc.sub_(2.4)
    assert min(map(len, kept(encode(centred, weights, partial(top_k, k=K))))) < K
    assert_exact(Candidates(K, 4 * K), centred, weights)


def test_the_error_of_bf16_stays_below_the_bound(centred: Tensor, weights: Weights) -> None:
    exact = centred.double() @ weights.W_enc.double().T
    low = centred.bfloat16() @ weights.W_enc.bfloat16().T
    fourth = weights.W_enc.double().pow(4).sum(1).max()
    deviation = candidate_topk.SIGMA * (centred.double().pow(4).sum(1) * fourth).sqrt().sqrt()
    error = (low.double() - exact).abs() - candidate_topk.UNIT * low.double().abs()
    assert (error / deviation[:, None]).max() < candidate_topk.SIGMAS
    assert (error / deviation[:, None]).max() > 0.5  # and the bound is no bigger than it must be


def test_non_finite_inputs_reach_the_loss(centred: Tensor, weights: Weights) -> None:
    centred[3] = torch.nan
    assert Candidates(K, 4 * K)(centred, weights).values.isnan().any()


def test_many_not_accepted_raise_the_candidates_and_in_the_end_give_up(centred: Tensor, weights: Weights) -> None:
    weights.b_enc.sub_(100)  # nothing is positive, so nothing can be accepted
    encoder, seen = Candidates(K, 2 * K), []
    while encoder.per_token:
        seen.append(encoder.per_token)
        encoder(centred, weights)
    assert seen == [16, 24, 36, 54]
    assert encoder.share() == 1.0
    encoder(centred, weights)
    assert (encoder.tokens, encoder.share()) == (0, 1.0)


def test_gradients_equal_dense_autograd() -> None:
    sae = CandidateTopK(64, 600, K, candidates=32)
    x = unit_rows(400, 64, seed=1, dtype=torch.float32)
    loss, codes, _ = sae.objective(x)
    loss.backward()
    truth = dense_objective(x.double(), Weights(*(w.detach().double() for w in sae.weights)), codes.dense() > 0)
    for parameter, gradient in zip(sae.weights, truth.gradients, strict=True):
        assert parameter.grad is not None
        assert relative_error(parameter.grad, gradient) < 1e-6
    assert 0 <= sae.encoder.share() < 1


@pytest.mark.parametrize("product", ["float64", "autocast"])
def test_other_precisions_take_the_plain_product(product: str, centred: Tensor, weights: Weights) -> None:
    if product == "float64":
        centred, weights = centred.double(), Weights(*(w.double() for w in weights))
    encoder = Candidates(K, 4 * K)
    with torch.autocast("cpu", torch.bfloat16, enabled=product == "autocast"):
        assert torch.equal(encoder(centred, weights).dense(), encode(centred, weights, partial(top_k, k=K)).dense())
    assert encoder.tokens == 0


@pytest.mark.parametrize(("slow", "left"), [("candidates", 0), ("float32", 16)])
def test_the_quicker_product_is_chosen(
    slow: str, left: int, centred: Tensor, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def takes(seconds: float, work: object) -> object:
        def timed(*arguments: object) -> object:
            nonlocal now
            now += seconds
            return work(*arguments)  # type: ignore[operator]

        return timed

    monkeypatch.setattr(candidate_topk.time, "perf_counter", lambda: now)
    monkeypatch.setattr(
        candidate_topk, "_candidates", takes(2.0 if slow == "candidates" else 1.0, candidate_topk._candidates)
    )
    monkeypatch.setattr(candidate_topk, "encode", takes(1.5, candidate_topk.encode))
    sae = CandidateTopK(64, 600, K, candidates="auto")
    sae.on_start(centred, lambda value: value)
    assert sae.encoder.per_token == left


def test_it_is_saved_as_a_topk_sae(tmp_path: Path) -> None:
    sae = CandidateTopK(16, 40, k=4, candidates="auto", seed=3)
    save(sae, tmp_path)
    found = load(tmp_path)
    assert type(found) is TopK and found.arguments == sae.arguments
    assert torch.equal(found.W_enc, sae.W_enc)


@pytest.mark.parametrize("wrong", [3, "many"])
def test_wrong_numbers_of_candidates_are_refused(wrong: int | str) -> None:
    with pytest.raises(Refused, match="^candidates="):
        CandidateTopK(16, 40, k=4, candidates=wrong)
