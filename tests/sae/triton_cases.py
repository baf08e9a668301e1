"""The Triton kernels against PyTorch. On a GPU: pytest tests/sae/triton_cases.py.

test_triton_topk.py runs it in Triton's interpreter, where a program takes a hundredth of a second: few tokens, few
latents.
"""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bisae.sae import Codes, TopK, encoder, load, save
from bisae.sae.architectures.triton_topk import TritonTopK
from bisae.sae.encoder import Weights, top_k
from bisae.sae.kernels import triton_products as products
from bisae.sae.kernels import triton_selection as selection
from bisae.sae.kernels import triton_step as step
from bisae.sae.kernels.products import SparseProducts
from bisae.sae.kernels.triton_selection import largest
from bisae.sae.kernels.triton_selection import top_k as triton_top_k
from bisae.sae.objective import topk_objective
from bisae.training.blocked_adam import BlockedAdam
from tests.sae.dense_reference import random_weights, relative_error, unit_rows

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize(
    ("latents", "k", "dtype"),
    [(43, 3, torch.float32), (16, 4, torch.bfloat16), (7, 7, torch.float32), (5, 1, torch.float16)],
)
def test_the_largest_are_those_of_pytorch(latents: int, k: int, dtype: torch.dtype) -> None:
    values = random(6, latents)
    values[1] = values[1].round()  # ties
    values[2] = 0
    values[3, :-1] = -torch.inf
    values[4, latents // 2] = torch.nan
    values[5, ::2] *= -torch.inf
    values = values.to(dtype)
    indices = largest(values, k)
    found, expected = values.gather(1, indices).sort(1, descending=True)[0], values.topk(k)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row)) == k and min(row) >= 0 and max(row) < latents for row in indices.tolist())
    assert torch.equal(largest(values[:1], k), indices[:1])


def test_codes_are_those_of_pytorch_where_fewer_than_k_are_positive() -> None:
    pre = random(4, 20) - 1.5
    assert 0 < (pre > 0).sum(1).max() < 6
    assert torch.equal(triton_top_k(pre, 6).dense(), top_k(pre, 6).dense())


@pytest.mark.parametrize(("ragged", "width"), [(False, 4), (True, 8)])  # of 5 numbers a row
def test_products_are_those_of_pytorch(ragged: bool, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PART", 2), ("TILE", 16), ("WIDTH", width)):
        monkeypatch.setattr(products, name, value)
    pre = random(11, 8)
    pre[:, 2] = 9  # on every token: six parts
    pre[:, 5:7] = -9  # on none
    if ragged:
        pre[4] = -1
    codes = Codes.positive(pre) if ragged else top_k(pre, 3)
    ours, truth = products.TritonProducts(codes), SparseProducts(codes)
    counts = truth.latent_offsets.diff()
    assert counts.max() == 11 - ragged and counts.min() == 0 and len(counts.unique()) > 3
    rows, directions, weights = random(11, 5, seed=1), random(8, 5, seed=2), random(len(codes.values), seed=3)
    for name, given in (
        ("decode", (directions,)),
        ("dots", (rows, directions)),
        ("sums", (rows, weights)),
        ("totals", (weights,)),
    ):
        found = getattr(ours, name)(*given)
        torch.testing.assert_close(found, getattr(truth, name)(*given), rtol=1e-6, atol=1e-6)
        assert torch.equal(getattr(ours, name)(*given), found), "other bits the second time"
    ((block, part),) = ours.blocks(rows, weights)
    assert block == slice(0, 8) and torch.equal(part, ours.sums(rows, weights))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_objective_and_its_gradients_are_those_of_topk(dtype: torch.dtype, tolerance: float) -> None:
    weights = Weights(*(w.to(DEVICE) for w in random_weights(30, 12, 0, dtype)))
    x = unit_rows(8, 12, 1, dtype).to(DEVICE)
    sae = TritonTopK(12, 30, 3).to(DEVICE, dtype)
    with torch.no_grad():
        for parameter, value in zip(sae.weights, weights, strict=True):
            parameter.copy_(value)
    found, truth = sae.objective(x), topk_objective(x, weights, 3)
    assert torch.equal(found.codes.dense() > 0, truth.codes.dense() > 0)
    assert relative_error(found.loss.detach(), truth.loss) < tolerance
    assert relative_error(found.x_hat, truth.x_hat) < tolerance
    found.loss.backward()
    for parameter, gradient in zip(sae.weights, truth.gradients, strict=True):
        assert parameter.grad is not None and relative_error(parameter.grad, gradient) < tolerance


def test_a_step_by_block_is_the_step_of_topk_and_saved_as_it(tmp_path: Path) -> None:
    x, stepped = unit_rows(5, 12, 1, torch.float32).to(DEVICE), []
    for sae in (TritonTopK(12, 30, 3), TopK(12, 30, 3)):
        sae.to(DEVICE)
        adam = BlockedAdam(sae.parameters(), fused=True, lr=1e-3)
        sae.objective(x, take=adam.take).loss.backward()
        adam.step()
        stepped.append(sae)
    # Adam's first step is lr in the sign of the gradient, and nothing where there is none.
    for found, expected in zip(stepped[0].weights, stepped[1].weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    save(stepped[0], tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is TopK
    torch.testing.assert_close(loaded.to(DEVICE).encode(x).dense(), stepped[0].encode(x).dense())


@pytest.mark.parametrize("latents", [40, 64])
def test_encoding_in_parts_is_that_of_pytorch_in_both_precisions(latents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "DENSE", 3 * latents)  # three tokens at once, of eight
    weights = Weights(*(w.to(DEVICE) for w in random_weights(latents, 12, 0, torch.float32)))
    centred = unit_rows(8, 12, 1, torch.float32).to(DEVICE) - weights.b_pre
    for bf16 in (False, True):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            found = selection.encode(centred, weights, 3)
            expected = encoder.encode(centred, weights, partial(top_k, k=3))
        assert found.values.dtype == torch.float32
        torch.testing.assert_close(found.dense(), expected.dense(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unit", [False, True])
def test_adam_with_its_gradient_is_that_of_pytorch(unit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PART", 2), ("TILE", 16), ("WIDTH", 4)):
        monkeypatch.setattr(products, name, value)
    monkeypatch.setattr(step, "PART", 2)
    pre = random(11, 8)
    pre[:, 2] = 9  # on every token: six parts
    pre[:, 5:7] = -9  # on none
    codes = top_k(pre, 3)
    ours, truth = products.TritonProducts(codes), SparseProducts(codes)
    matrices = [random(8, 5, seed=1) for _ in range(2)]
    adam = torch.optim.Adam([matrices[1]], lr=0.1, eps=1e-8)
    state = {name: torch.zeros(8, 5, device=DEVICE) for name in ("exp_avg", "exp_avg_sq")}
    state["step"] = torch.zeros((), device=DEVICE)
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0, "maximize": False}
    for number in range(3):
        rows, weights = random(11, 5, seed=2 + number), random(len(codes.values), seed=9 + number)
        state["step"] += 1
        assert step.adam(matrices[0], state, ours, rows, weights, settings, unit)
        matrices[1].grad = truth.sums(rows, weights)
        adam.step()
        if unit:
            encoder.normalize_rows(matrices[1])
        torch.testing.assert_close(matrices[0], matrices[1], rtol=1e-5, atol=1e-6)
    of_torch = adam.state[matrices[1]]
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[name], of_torch[name], rtol=1e-5, atol=1e-7)
    assert not step.adam(matrices[0], state, ours, rows, weights, {**settings, "weight_decay": 0.1}, unit)
