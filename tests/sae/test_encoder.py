from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bisae.sae.encoder import Codes, largest, positive, pre_activations, scratch, top_k
from tests.sae.dense_reference import random_weights, relative_error, unit_rows


def test_only_the_product_is_rounded_under_autocast() -> None:
    W_enc, b_enc, _, _ = random_weights(64, 16, seed=0, dtype=torch.float32)
    x = unit_rows(32, 16, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pre_activations(x, W_enc, b_enc)
    product = (x.bfloat16() @ W_enc.bfloat16().T).float()
    assert torch.equal(found, product + b_enc)
    assert 1e-4 < relative_error(product, x @ W_enc.T) < 1e-2


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


@pytest.mark.parametrize(("columns", "k"), [(1, 1), (9, 9), (600, 1), (600, 70), (2**16, 5), (70_000, 300)])
def test_int16_is_selected_with_its_sign_whatever_the_number_of_columns(columns: int, k: int) -> None:
    values = torch.randint(-(2**15), 2**15, (3, columns), generator=torch.Generator().manual_seed(0)).short()
    indices = largest(values, k)
    assert torch.equal(values.gather(1, indices).sort()[0], values.topk(k)[0].sort()[0])
    assert all(len(set(row)) == k for row in indices.tolist())


def test_a_large_last_latent_and_nan_are_never_missed() -> None:
    for column in range(601):  # 601: one latent is in no group
        values = torch.zeros(2, 601)
        values[0, column], values[1, column] = 1.0, torch.nan
        assert (largest(values, 4) == column).any(1).all()


@given(st.integers(0, 9), st.integers(1, 40), st.sampled_from([0, 0.02, 0.2, 0.9, 1]), st.integers(0, 2**16))
def test_entries_kept_are_in_the_order_of_tokens_and_latents(
    tokens: int, latents: int, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(tokens, latents, generator=generator)
    kept = torch.rand(tokens, latents, generator=generator) < share
    codes = Codes.where(kept, dense)
    token, indices = kept.nonzero(as_tuple=True)
    assert torch.equal(codes.indices, indices) and torch.equal(codes.token_of_entry().long(), token)
    assert torch.equal(codes.values, dense[token, indices])
    assert codes.offsets.tolist() == [0, *kept.sum(1).cumsum(0).tolist()]


def test_positive_is_relu() -> None:
    pre = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(positive(pre).dense(), pre.relu())


LIKE = torch.empty(0)


def test_memory_is_used_again_while_it_is_large_enough() -> None:
    large = scratch(30, 50, LIKE)
    assert scratch(10, 20, LIKE).data_ptr() == large.data_ptr()
    assert scratch(10, 20, LIKE).shape == (10, 20)
    assert scratch(300, 50, LIKE).shape == (300, 50)


def test_dtypes_and_threads_do_not_share_memory() -> None:
    here = scratch(10, 10, LIKE)
    assert scratch(10, 10, LIKE.double()).dtype == torch.float64
    with ThreadPoolExecutor(1) as other:
        there = other.submit(scratch, 10, 10, LIKE).result()
    assert len({here.data_ptr(), there.data_ptr()}) == 2


def test_memory_taken_in_validation_can_be_written_in_training() -> None:
    with torch.inference_mode():
        scratch(1000, 1000, LIKE)
    weights = torch.zeros(5, requires_grad=True)
    (scratch(1000, 1000, LIKE).zero_()[0, :5] * weights).sum().backward()
    assert weights.grad is not None


@st.composite
def dense_codes(draw: st.DrawFn) -> Tensor:
    """Non-negative matrices with many zeros, empty rows and empty batches among them."""
    tokens, latents = draw(st.integers(0, 6)), draw(st.integers(1, 9))
    row = st.lists(st.sampled_from([0.0, 0.0, 0.5, 2.0]), min_size=latents, max_size=latents)
    rows = draw(st.lists(row, min_size=tokens, max_size=tokens))
    return torch.tensor(rows, dtype=torch.float64).reshape(tokens, latents)


@given(dense_codes())
def test_a_dense_code_survives_the_way_through_codes(dense: Tensor) -> None:
    codes = Codes.positive(dense)
    assert len(codes.values) == int((dense > 0).sum())
    assert torch.equal(codes.dense(), dense)


@given(dense_codes())
def test_counts_agree_with_the_dense_code(dense: Tensor) -> None:
    codes = Codes.positive(dense)
    assert codes.tokens == len(dense)
    assert torch.equal(codes.l0(), (dense > 0).sum(1))
    assert torch.equal(codes.fired(), (dense > 0).any(0))


@given(dense_codes())
def test_every_entry_knows_its_token(dense: Tensor) -> None:
    codes = Codes.positive(dense)
    assert torch.equal(dense[codes.token_of_entry(), codes.indices], codes.values)


@given(st.integers(0, 5), st.integers(1, 4), st.booleans())
def test_fixed_codes_give_their_matrices_back(tokens: int, k: int, int32: bool) -> None:
    values = torch.rand(tokens, k)
    indices = torch.rand(tokens, 7).argsort(dim=1)[:, :k].to(torch.int32 if int32 else torch.int64)
    codes = Codes.fixed(values, indices, 7)
    found_values, found_indices = codes.as_fixed()
    assert torch.equal(found_values, values) and torch.equal(found_indices, indices)
    assert torch.equal(codes.dense().gather(1, indices.long()), values)
    assert codes.offsets.tolist() == [k * t for t in range(tokens + 1)]


def test_fixed_codes_are_recognised_by_their_counts_alone() -> None:
    codes = Codes(torch.rand(6), torch.tensor([0, 1, 2, 2, 1, 0]), torch.tensor([0, 3, 6]), latents=4)
    assert codes.as_fixed()[1].tolist() == [[0, 1, 2], [2, 1, 0]]


def test_ragged_codes_refuse_to_be_matrices() -> None:
    codes = Codes(torch.rand(3), torch.tensor([0, 1, 2]), torch.tensor([0, 1, 3]), latents=4)
    with pytest.raises(ValueError, match="ragged: between 1 and 2 entries"):
        codes.as_fixed()


def test_slots_of_value_zero_are_no_firings() -> None:
    codes = Codes.fixed(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[2, 0], [1, 3]]), latents=4)
    assert codes.l0().tolist() == [1, 0]
    assert codes.fired().tolist() == [False, False, True, False]
