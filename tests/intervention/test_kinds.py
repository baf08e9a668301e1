import numpy as np
import pandas as pd
import pytest

from bisae.intervention.kinds import feature_set
from bisae.runtime.errors import Refused

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
    with pytest.raises(Refused, match=said):
        feature_set(FEATURES, kind, ["en", "ja"])
