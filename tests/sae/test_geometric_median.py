import torch
from hypothesis import given
from hypothesis import strategies as st

from bisae.sae.sparse_autoencoder import geometric_median


def distance_sum(points: torch.Tensor, at: torch.Tensor) -> float:
    return float((points - at).norm(dim=1).sum())


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**16))
def test_no_point_nearby_has_a_smaller_sum_of_distances(tokens: int, d_model: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = torch.randn(tokens, d_model, generator=g, dtype=torch.float64)
    median = geometric_median(points, iterations=1000, tolerance=1e-12)
    for size in (1e-1, 1e-2):
        near = median + size * torch.nn.functional.normalize(
            torch.randn(d_model, generator=g, dtype=torch.float64), dim=0
        )
        assert distance_sum(points, median) <= distance_sum(points, near) + 1e-5


def test_of_a_symmetric_cloud_it_is_the_centre() -> None:
    half = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centre = torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(geometric_median(torch.cat([centre + half, centre - half])), centre)


def test_a_far_outlier_does_not_drag_it_as_it_drags_the_mean() -> None:
    points = torch.randn(100, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = geometric_median(points)
    points[0] = 1e4
    assert points.mean(0).norm() > 100
    assert (geometric_median(points) - without).norm() < 0.1


def test_identical_points_are_their_own_median() -> None:
    point = torch.tensor([0.5, -2.0, 3.0])
    torch.testing.assert_close(geometric_median(point.expand(7, 3)), point)


def test_it_starts_at_the_mean_and_stops_at_a_short_step() -> None:
    points = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(geometric_median(points, iterations=0), points.mean(0))
    assert torch.equal(geometric_median(points, tolerance=100.0), geometric_median(points, iterations=1))
    assert not torch.equal(geometric_median(points, iterations=1), geometric_median(points))
