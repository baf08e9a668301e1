from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisae.config.values import ABOVE_ZERO, NOT_NEGATIVE, TEXT, WHOLE, check_values
from bisae.runtime.errors import ConfigError

ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([]), st.just({"a": 1}))


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


@given(st.sampled_from(sorted(WHOLE)), ANYTHING)
def test_a_value_that_is_no_whole_number_is_refused_by_its_key(key: str, value: Any) -> None:
    right = type(value) is int and WHOLE[key] <= value < 2**63 or (value == [] and key.startswith("sae."))
    check(key, value, right)


@given(st.sampled_from([*ABOVE_ZERO, *NOT_NEGATIVE]), ANYTHING)
def test_a_value_that_is_no_number_in_its_range_is_refused_by_its_key(key: str, value: Any) -> None:
    number = type(value) in (int, float) and 0 <= value < float("inf") and (value > 0 or key in NOT_NEGATIVE)
    check(key, value, number or (value == [] and key.startswith("sae.")))


@given(st.sampled_from(TEXT), ANYTHING)
def test_a_value_that_is_no_text_is_refused_by_its_key(key: str, value: Any) -> None:
    word = not key.endswith(".name") or ("/" not in str(value) and str(value)[:1] != ".")
    check(key, value, isinstance(value, str) and value != "" and word)


def check(key: str, value: Any, right: bool) -> None:
    if right:
        check_values(nested(key, value))
    else:
        with pytest.raises(ConfigError) as refused:
            check_values(nested(key, value))
        assert refused.value.key == key


def test_every_value_of_a_list_of_members_is_checked() -> None:
    check_values({"sae": {"k": [1, 2], "lr": [0.1, 1]}})
    with pytest.raises(ConfigError, match="sae.k=0: must be a whole number, at least 1"):
        check_values({"sae": {"k": [4, 0]}})
    with pytest.raises(ConfigError, match="data.batch"):
        check_values({"data": {"batch": [4, 8]}})
