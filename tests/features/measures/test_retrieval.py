"""Retrieval of translations against a dense reference, a known answer, and chance."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from bisae.features.measures.retrieval import Vectors, pools, retrieve


def random_pairs(pairs: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sparse vectors above 0 of sentences and their translations, each language with a mean of its own."""
    random = np.random.default_rng(seed)
    meaning = random.random((pairs, 20)) * (random.random((pairs, 20)) < 0.3)
    left, right = (meaning + noise * random.random((pairs, 20)) for _ in range(2))
    left[:, 0] += 3
    right[:, 1] += 5
    return left, right


def test_pools_are_disjoint_and_of_one_size() -> None:
    dealt = pools(47, 10, seed=3)
    assert dealt.shape == (4, 10) and len(set(dealt.ravel())) == 40
    assert pools(9, 10, seed=0).size == 0


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_it_is_the_nearest_by_the_cosine_of_a_dense_reference(sparse: bool, centred: bool) -> None:
    left, right = random_pairs(60, 0.8)
    pool = pools(60, 15, seed=1)
    x, y = (side - side.mean(0) if centred else side for side in (left, right))
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (x, y))
    hits = [np.argmax(x[members] @ y[members].T, axis=1) == np.arange(15) for members in pool]
    back = [np.argmax(y[members] @ x[members].T, axis=1) == np.arange(15) for members in pool]
    given: tuple[Vectors, Vectors] = (csr_array(left), csr_array(right)) if sparse else (left, right)
    found = retrieve(*given, pool, centred)
    np.testing.assert_array_equal(found.forward, np.concatenate(hits))
    np.testing.assert_array_equal(found.backward, np.concatenate(back))
    assert 0 < found.forward.mean() < 1 and not np.array_equal(found.forward, found.backward)


def test_the_means_of_the_languages_hide_translations_and_are_removed() -> None:
    left, right = random_pairs(400, 0.05)
    left[:, 0] += 30 * np.random.default_rng(5).random(400)  # the length along a language's own direction
    pool = pools(400, 100, seed=0)
    assert retrieve(left, right, pool, centred=False).forward.mean() < 0.9
    np.testing.assert_array_equal(retrieve(right, right + 7, pool, centred=True).forward, 1)


def test_equal_candidates_share_the_hit_and_vectors_of_nothing_are_found_by_chance() -> None:
    left = np.eye(4)[[0, 1, 2, 2]]
    pool = np.arange(4)[None]
    found = retrieve(left, left, pool, centred=False)
    assert found.forward.tolist() == found.backward.tolist() == [1, 1, 0.5, 0.5]
    nothing = csr_array((4, 3))
    for centred in (False, True):
        assert retrieve(nothing, nothing, pool, centred).forward.tolist() == [0.25] * 4


def test_with_another_pairs_translation_it_is_chance() -> None:
    left, right = random_pairs(4000, 0.3)
    found = retrieve(left, right, pools(4000, 20, seed=0), centred=True)
    assert found.forward.mean() > 0.5
    assert found.shuffled.mean() < 1 / 20 < found.shuffled.mean() + 0.05  # a hit of its own leaves none for others
    unrelated = retrieve(left, random_pairs(4000, 0.3, seed=1)[1], pools(4000, 20, seed=0), centred=True)
    for hits in unrelated:
        assert abs(hits.mean() - 1 / 20) < 4 * hits.std() / np.sqrt(len(hits))
