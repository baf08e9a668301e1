from collections.abc import Iterator

import pytest
import torch

from bisae.sae.kernels import dense
from tests.sae.dense_reference import random_weights, unit_rows

ONEDNN = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN")


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor for which oneDNN is taken."""
    monkeypatch.setattr(dense, "has_onednn", lambda: True)


@pytest.fixture
def restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")


@ONEDNN
@pytest.mark.parametrize(("tokens", "latents", "d_model"), [(300, 1000, 64), (1, 5, 3), (2, 2, 1), (5000, 500, 7)])
def test_onednns_product_has_float32s_precision(tokens: int, latents: int, d_model: int, onednn: None) -> None:
    W, b, *_ = random_weights(latents, d_model, seed=0, dtype=torch.float32)
    x = unit_rows(tokens, d_model, seed=1, dtype=torch.float32)
    found = dense.product(x, W, b, torch.empty(tokens, latents))
    size = (x.double().norm(dim=1)[:, None] * W.double().norm(dim=1) + b.abs()).clamp_min(1e-30)
    error = (found.double() - x.double() @ W.double().T - b.double()).abs() / size
    assert error.max() < (d_model + 2) * 2**-24


@ONEDNN
def test_onednns_product_has_the_same_bits_with_any_number_of_threads(onednn: None, restored: None) -> None:
    W, b, *_ = random_weights(3000, 96, seed=0, dtype=torch.float32)
    x, found = unit_rows(1500, 96, seed=1, dtype=torch.float32), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(dense.product(x, W, b, torch.empty(1500, 3000)))
    assert torch.equal(*found)


@pytest.mark.parametrize("case", ["float64", "medium", "autocast"])
def test_other_precisions_are_pytorchs(case: str, onednn: None, restored: None) -> None:
    dtype = torch.float64 if case == "float64" else torch.float32
    W, b, *_ = random_weights(100, 16, seed=0, dtype=dtype)
    x, out = unit_rows(30, 16, seed=1, dtype=dtype), torch.empty(30, 100, dtype=dtype)
    torch.set_float32_matmul_precision("medium" if case == "medium" else "highest")
    with torch.autocast("cpu", enabled=case == "autocast"):
        assert dense.exact(x) == (case == "float64")
        assert torch.equal(dense.product(x, W, b, out), torch.addmm(b, x, W.T, out=torch.empty_like(out)))


def test_the_makers_name_and_the_flags_say_whether_onednn_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, taken in (
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, hasattr(torch.ops.mkldnn, "_linear_pointwise")),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags, raising=False)
        assert dense.has_onednn.__wrapped__() == taken
