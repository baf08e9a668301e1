from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisae.features import resampled
from bisae.features.contexts import InOrder, Paper, Patterns, Peaks, Top
from bisae.features.resampled import choose


@dataclass(frozen=True)
class Plain:
    """A rule of which only `chosen` is known."""

    rule: Patterns

    def chosen(self, peaks: Peaks, maximum: np.ndarray) -> np.ndarray:
        return self.rule.chosen(peaks, maximum)


def some_peaks(random: np.random.Generator, latents: int, sequences: int, dense: float) -> Peaks:
    latent, sequence = np.nonzero(random.random((latents, sequences)) < dense * random.random((latents, 1)) ** 3)
    value = (random.random(len(latent)) ** 2 * 40).round() / 8 + 0.125  # many are equal
    return Peaks(latent, sequence.astype(np.int32), value.astype(np.float32))


@given(st.integers(0, 10_000), st.sampled_from([Paper(3, 0.7), Paper(2, 0.0), Top(4), Paper(50, 0.5)]))
def test_contexts_in_resamples_are_those_of_the_repeated_sequences(seed: int, rule: InOrder) -> None:
    random = np.random.default_rng(seed)
    peaks = some_peaks(random, 12, 150, 1.0)
    strongest = np.array([peaks.value[peaks.latent == latent].max(initial=0) for latent in range(12)])
    maximum = np.where(random.random(12) < 0.6, strongest, strongest + 1).astype(np.float32)
    drawn = random.poisson(0.3, (6, 150)).astype(np.uint8)  # few of them, so that many are looked at
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resampled, "STRONGEST", 2)
        quick = choose(rule, peaks, maximum, drawn)
    plain = choose(Plain(rule), peaks, maximum, drawn)
    assert isinstance(rule, InOrder) and not isinstance(Plain(rule), InOrder)
    for name in ("contexts", "further", "times"):
        assert np.array_equal(getattr(quick, name), getattr(plain, name))


def test_without_its_largest_firing_a_latent_has_a_lower_maximum_unless_topk_hid_a_larger_activation() -> None:
    value = np.array([1.0, 0.8, 0.5, 1.0, 0.8, 0.5], np.float32)
    peaks = Peaks(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2], np.int32), value)
    choice = choose(Paper(5, 0.6), peaks, np.array([1.0, 1.5], np.float32), np.array([[0, 1, 2]], np.uint8))
    assert choice.contexts.tolist() == [0, 1, 3] and choice.further.tolist() == [2]
    assert choice.times.tolist() == [[0, 1, 0, 2]]  # 0.5 > 0.6 x 0.8; of latent 1 nothing is above 0.9
