import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisae.sae.selection import largest, positive, top_k


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**16), st.data())
def test_top_k_keeps_the_k_largest_positive_values(tokens: int, latents: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, latents))
    # Few different values, so that ties at the threshold are the rule.
    pre = torch.randint(-3, 4, (tokens, latents), generator=torch.Generator().manual_seed(seed)).float()
    values, indices = top_k(pre, k).as_fixed()
    assert torch.equal(values, pre.gather(1, indices).relu())
    assert torch.equal(values.sort(dim=1, descending=True)[0], pre.relu().sort(dim=1, descending=True)[0][:, :k])
    assert all(len(set(row)) == k for row in indices.tolist())


@given(st.integers(64, 700), st.integers(1, 12), st.booleans(), st.integers(0, 2**16))
def test_two_stages_find_what_one_finds(latents: int, k: int, ties: bool, seed: int) -> None:
    values = torch.randn(3, latents, generator=torch.Generator().manual_seed(seed))
    if ties:
        values = values.round()
    indices = largest(values, k)
    assert torch.equal(values.gather(1, indices).sort()[0], values.topk(k)[0].sort()[0])
    assert all(len(set(row)) == k for row in indices.tolist())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int16])
def test_any_dtype_can_be_selected(dtype: torch.dtype) -> None:
    values = (1000 * torch.randn(5, 600, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert torch.equal(values.gather(1, largest(values, 6)).sort()[0], values.topk(6)[0].sort()[0])


def test_a_large_last_latent_and_nan_are_never_missed() -> None:
    for column in range(601):  # 601: one latent is in no group
        values = torch.zeros(2, 601)
        values[0, column], values[1, column] = 1.0, torch.nan
        assert (largest(values, 4) == column).any(1).all()


def test_positive_is_relu() -> None:
    pre = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(positive(pre).dense(), pre.relu())
