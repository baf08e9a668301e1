import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bisae.features.codes import Firings
from bisae.features.measures import stability
from bisae.features.measures.stability import correlation, cosine_by_chance, one_to_one


def planted(
    latents: int, d_model: int, same: int, seed: int = 0
) -> tuple[Float[Tensor, "latent d_model"], Float[Tensor, "latent d_model"], np.ndarray]:
    """Two random decoders, of which the first `same` latents of one are nearly latents of the other; and where."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, latents, d_model, generator=generator)
    b[:same] = 3 * a[:same] + 0.1 * torch.randn(same, d_model, generator=generator)  # lengths do not matter
    order = torch.randperm(latents, generator=generator)
    return a, b[order], order.argsort().numpy()


@pytest.mark.parametrize("exact", [4096, 64])
def test_latents_are_matched_one_to_one_so_that_the_sum_of_cosines_is_largest(
    monkeypatch: pytest.MonkeyPatch, exact: int
) -> None:
    monkeypatch.setattr(stability, "EXACT", exact)
    monkeypatch.setattr(stability, "BLOCK", 130)
    a, b, where = planted(700, 32, 60)
    match, cosine = one_to_one(a, b)
    all_pairs = torch.nn.functional.normalize(a.double(), dim=1) @ torch.nn.functional.normalize(b.double(), dim=1).T
    best = all_pairs.numpy()[linear_sum_assignment(all_pairs.numpy(), maximize=True)]
    assert sorted(match) == list(range(700)) and (match[:60] == where[:60]).all()
    np.testing.assert_allclose(cosine, all_pairs.numpy()[np.arange(700), match], atol=1e-6)
    assert -1e-6 < best.mean() - cosine.mean() < (1e-6 if exact == 4096 else 1e-5)


def test_latents_without_a_free_candidate_are_matched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "EXACT", 8)
    monkeypatch.setattr(stability, "NEAR", 2)
    a = torch.eye(4)[torch.arange(40) % 2] + 1e-3 * torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    match, _ = one_to_one(a, torch.cat([a[:4], torch.eye(4)[2:].repeat(18, 1)]))
    assert sorted(match) == list(range(40))


def test_random_decoders_match_by_chance_as_measured_by_hand() -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 200, 16, generator=torch.Generator().manual_seed(5)), dim=2)
    pairs = linear_sum_assignment((a @ b.T).numpy(), maximize=True)
    assert cosine_by_chance(200, 16) == pytest.approx((a @ b.T).numpy()[pairs].mean(), abs=0.01)


def test_activations_are_correlated_over_all_tokens_and_unknown_for_silent_latents() -> None:
    rng = np.random.default_rng(0)
    values = [np.where(rng.random((6, 400)) < 0.2, rng.random((6, 400)), 0).astype(np.float32) for _ in range(2)]
    values[1][2] = 2 * values[0][0]
    values[0][5] = 0
    match = np.array([2, 1, 0, 3, 5, 4])

    def firings(dense: np.ndarray) -> Firings:
        offsets = np.concatenate([[0], (dense > 0).sum(1).cumsum()])
        return Firings(0, offsets, np.nonzero(dense)[1], dense[dense > 0])

    found = correlation(firings(values[0]), firings(values[1]), match, 400)
    expected = [np.corrcoef(values[0][one], values[1][other])[0, 1] for one, other in enumerate(match[:5])]
    np.testing.assert_allclose(found[:5], expected, rtol=1e-6)
    assert found[0] == pytest.approx(1) and np.isnan(found[5])
