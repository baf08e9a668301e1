import pytest

from bisae.config.keys import key_of, refused_by_key
from bisae.runtime.errors import ConfigError, Refused

SETTINGS = {
    "size": {"k": 3, "tokens": 1},
    "seed": 0,
    "data": {"seed": 0, "tokens": 1, "split": "a"},
    "sae": {"k": 3, "seed": 0},
    "space": {"model": {"path": "p"}},
    "model": {"path": "q"},
}


@pytest.mark.parametrize(
    ("field", "scope", "key"),
    [
        ("k", "", "sae.k"),
        ("tokens", "", "data.tokens"),
        ("seed", "", "seed"),
        ("seed", "sae", "sae.seed"),
        ("seed", "model", "seed"),  # nothing below the scope has the field
        ("path", "", "model.path"),
        ("path", "space", "space.model.path"),
        ("model", "", "model"),
        ("data", "", "data"),
        ("elsewhere", "", "elsewhere"),
    ],
)
def test_a_field_is_named_by_the_nearest_key_that_sets_it(field: str, scope: str, key: str) -> None:
    assert key_of(field, SETTINGS, scope) == key


def test_a_refused_field_becomes_an_error_of_its_key_and_others_pass() -> None:
    with pytest.raises(ConfigError, match=r"^data\.split=b: there is a$"), refused_by_key(SETTINGS):
        raise Refused("split", "b", "there is a")
    with pytest.raises(ConfigError, match=r"^data\.other=b"), refused_by_key(SETTINGS, split="data.other"):
        raise Refused("split", "b", "there is a")
    with pytest.raises(ConfigError, match=r"^sae\.k=0"), refused_by_key(SETTINGS), refused_by_key(SETTINGS, "sae"):
        raise Refused("k", 0, "must be at least 1")
    with pytest.raises(ValueError, match="^plain$"), refused_by_key(SETTINGS):
        raise ValueError("plain")
