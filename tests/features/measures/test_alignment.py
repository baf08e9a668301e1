import numpy as np
import pytest
from scipy.sparse import csr_array, random_array
from scipy.stats import pearsonr

from bisae.features.measures.alignment import aligned, alignment, is_word, jaccard, sentence_peaks

PAIRS, LATENTS = 60, 12


def peaks(seed: int) -> csr_array:
    """Random peaks; latent 0 never fires."""
    dense = random_array((PAIRS, LATENTS), density=0.2, rng=np.random.default_rng(seed), dtype=np.float32).toarray()
    dense[:, 0] = 0
    return csr_array(dense)


def test_correlations_are_those_of_pearson_on_dense_peaks() -> None:
    left, right = peaks(0), peaks(1)
    right += 0.5 * left
    found = alignment(left, right, permutations=1, seed=0)
    dense, other = left.toarray().astype(float), right.toarray().astype(float)
    expected = [pearsonr(dense[:, latent], other[:, latent]).statistic for latent in range(1, LATENTS)]
    np.testing.assert_allclose(found.r[1:], expected, rtol=1e-10)
    assert max(expected) > 0.3


def test_p_counts_the_shuffles_that_correlate_as_strongly() -> None:
    left, right = peaks(0).toarray(), peaks(1).toarray()
    right[:20] += left[:20]
    found = alignment(csr_array(left), csr_array(right), permutations=400, seed=0)
    rng = np.random.default_rng(5)
    for latent in range(1, LATENTS):
        x, y = left[:, latent], right[:, latent]
        shuffled = np.array([np.corrcoef(x, rng.permutation(y))[0, 1] for _ in range(2000)])
        assert found.p[latent] == pytest.approx((shuffled >= np.corrcoef(x, y)[0, 1] - 1e-9).mean(), abs=0.08)
    assert found.p[1:].min() < 0.02 < 0.2 < found.p[1:].max()


def test_the_smallest_p_is_the_true_pairing_itself() -> None:
    left = csr_array(np.arange(50, dtype=np.float32)[:, None])
    assert alignment(left, left, permutations=99, seed=0).p == [0.01]
    assert alignment(left, -left, permutations=99, seed=0).p == [1.0]


def test_a_shuffle_that_differs_only_in_rounding_counts_as_strong() -> None:
    """One translation fires; half of the sentences do, as much as its own: half of the shuffles are as good."""
    left, right = np.zeros((2, 30, 1), dtype=np.float32)
    left[:15], right[7] = 0.1, 0.7
    assert alignment(csr_array(left), csr_array(right), 2000, seed=0).p == pytest.approx(0.5, abs=0.05)


def test_without_variation_on_a_side_nothing_is_said() -> None:
    left = peaks(0)
    silent = alignment(left, left, permutations=5, seed=0)
    always = alignment(csr_array(np.ones((PAIRS, LATENTS), np.float32)), left, permutations=5, seed=0)
    for values in silent:
        assert np.isnan(values[0]) and not np.isnan(values[1:]).any()
    assert all(np.isnan(values).all() for values in always)


def test_shuffled_pairs_do_not_correlate_and_a_seed_repeats_them() -> None:
    left = csr_array(np.random.default_rng(0).random((500, 40)).astype(np.float32))
    first, again, other = (alignment(left, left, permutations=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_allclose(first.r, 1)
    assert abs(first.r_shuffled).max() < 0.25
    assert (first.r_shuffled == again.r_shuffled).all() and (first.r_shuffled != other.r_shuffled).any()


def test_sides_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="12"):
        alignment(peaks(0), peaks(1)[:, :3], permutations=1, seed=0)


def test_of_the_latents_active_on_either_side_the_share_on_both_is_counted() -> None:
    left, right = peaks(0).toarray(), peaks(1).toarray()
    left[7] = right[7] = 0
    sets = [[set(np.flatnonzero(row)) for row in side] for side in (left, right)]
    expected = [len(one & other) / max(len(one | other), 1) for one, other in zip(*sets, strict=True)]
    np.testing.assert_allclose(jaccard(csr_array(left), csr_array(right)), expected)
    assert expected[7] == 0 < max(expected) < 1


def test_a_sentence_keeps_a_latents_largest_activation() -> None:
    sentence, latent = np.array([2, 0, 2, 2, 0]), np.array([1, 3, 1, 0, 3])
    value = np.array([0.5, 0.1, 0.9, 0.2, 0.3], dtype=np.float32)
    found = sentence_peaks(sentence, latent, value, (4, 5))
    expected = np.zeros((4, 5), dtype=np.float32)
    expected[2, 1], expected[0, 3], expected[2, 0] = 0.9, 0.3, 0.2
    assert found.dtype == np.float32 and found.nnz == 3
    np.testing.assert_array_equal(found.toarray(), expected)
    assert sentence_peaks(sentence[:0], latent[:0], value[:0], (4, 5)).nnz == 0


def test_the_rule_asks_for_size_and_controls_false_discoveries() -> None:
    r = np.array([0.5, 0.1, 0.5, np.nan, 0.5])
    p = np.array([0.001, 0.001, 0.04, np.nan, 0.9])
    assert aligned(r, p, 0.2, 0.05).tolist() == [True, False, False, False, False]  # 0.04 * 4 / 3 > 0.05
    assert aligned(r, p, 0.2, 0.06).tolist() == [True, False, True, False, False]
    assert not aligned(np.full(2, np.nan), np.full(2, np.nan), 0.2, 0.05).any()


def test_words_have_a_letter_of_any_script() -> None:
    texts = ["the", " 犬", "アー", "々", "é", "a1", "12", "。", "...", "<0xE3>", "<s>", "<|end|>", "", " ", "①", "a<b"]
    assert is_word(texts).tolist() == [True] * 6 + [False] * 9 + [True]
