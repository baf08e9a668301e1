from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bisae.sae.encoder import Codes
from bisae.sae.kernels.products import DenseProducts, SparseProducts, chunked_dots, dots, products_of


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.floats(0, 1), st.booleans(), st.integers(0, 2**16))
def test_both_ways_equal_matrix_products(
    tokens: int, latents: int, d_model: int, density: float, int32: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.rand(tokens, latents, generator=g, dtype=torch.float64)
    z *= torch.rand(tokens, latents, generator=g) < density
    rows = torch.randn(tokens, d_model, generator=g, dtype=torch.float64)
    directions = torch.randn(latents, d_model, generator=g, dtype=torch.float64)
    codes = Codes.positive(z)
    if int32:
        codes = replace(codes, indices=codes.indices.int())
    weights = torch.randn(len(codes.values), generator=g, dtype=torch.float64)
    signed = torch.zeros_like(z)
    signed[z > 0] = weights
    for products in (SparseProducts(codes), DenseProducts(codes)):
        torch.testing.assert_close(products.decode(directions), z @ directions)
        torch.testing.assert_close(products.dots(rows, directions), (rows @ directions.T)[z > 0])
        torch.testing.assert_close(products.sums(rows, weights), signed.T @ rows)
        torch.testing.assert_close(products.totals(weights), signed.sum(0))


@pytest.mark.parametrize("most", [1, 10, 1000])
def test_dots_by_chunks_equal_one_product(most: int) -> None:
    g = torch.Generator().manual_seed(0)
    rows, directions = torch.randn(7, 5, generator=g), torch.randn(9, 5, generator=g)
    codes = Codes.positive(torch.rand(7, 9, generator=g) - 0.3)
    expected = (rows @ directions.T)[codes.token_of_entry(), codes.indices]
    torch.testing.assert_close(chunked_dots(rows, directions, codes, most), expected)
    torch.testing.assert_close(dots(rows, directions, codes), expected)


def test_sparse_codes_take_the_sparse_way_and_crowded_ones_the_dense() -> None:
    z = torch.zeros(4, 64)
    z[:, 0] = 1
    assert isinstance(products_of(Codes.positive(z)), SparseProducts)
    z[:, :8] = 1
    assert isinstance(products_of(Codes.positive(z)), DenseProducts)
