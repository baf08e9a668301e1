import numpy as np
import pandas as pd
import pytest

from bisae.errors import ConfigError
from bisae.intervention.feature_sets import feature_set, random_set

FEATURES = pd.DataFrame(
    {
        "class": ["English", "Mixed", "dead", "Japanese", "Mixed", "English"],
        "bilingual": [False, True, False, False, False, False],
    }
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", []),
        ("en", [0, 5]),
        ("ja", [3]),
        ("mixed", [1, 4]),
        ("bi", [1]),
        ("all", [0, 1, 3, 4, 5]),
        ([4, 0], [0, 4]),
        ([], []),
    ],
)
def test_a_kind_is_the_features_of_its_class(kind: str | list[int], expected: list[int]) -> None:
    assert np.flatnonzero(feature_set(FEATURES, kind, ["en", "ja"])).tolist() == expected


def test_languages_without_a_name_are_kinds_by_their_code() -> None:
    features = FEATURES.replace({"class": {"English": "fr"}})
    assert np.flatnonzero(feature_set(features, "fr", ["fr", "ja"])).tolist() == [0, 5]


@pytest.mark.parametrize(("kind", "said"), [("fr", "kind=fr: choose .* bi, aligned, all"), ([6], "6")])
def test_what_is_no_kind_and_no_feature_is_refused(kind: str | list[int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        feature_set(FEATURES, kind, ["en", "ja"])


def test_random_sets_are_living_features_as_many_and_as_active_and_another_for_every_seed() -> None:
    random = np.random.default_rng(3)
    mass = np.sort(random.pareto(1.0, 1000))[random.permutation(1000)]
    features = pd.DataFrame({"class": ["dead", "Mixed"] * 500, "mass_en": mass * 0.25, "mass_ja": mass * 0.75})
    like = np.isin(np.arange(1000), random.choice(np.arange(1, 1000, 2), 60, replace=False))
    one, again, other = (random_set(features, like, seed) for seed in (0, 0, 1))
    for chosen in (one, other):
        assert chosen.sum() == 60 and not chosen[::2].any()
        assert 0.7 < np.median(mass[chosen]) / np.median(mass[like]) < 1.4
    assert np.array_equal(one, again) and not np.array_equal(one, other) and not (one & like).all()


def test_a_random_set_like_nothing_is_nothing() -> None:
    assert not random_set(FEATURES.assign(mass_en=1.0), np.zeros(len(FEATURES), bool), 0).any()
