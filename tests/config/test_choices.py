import pytest
from hypothesis import given
from hypothesis import strategies as st

from bisae.config.choices import check_k_by_layer, layers_of, variants
from bisae.runtime.errors import ConfigError


def test_all_means_every_block_and_not_the_embeddings() -> None:
    assert layers_of("all", 4) == [1, 2, 3, 4]
    assert layers_of(0, 4) == [0]
    assert layers_of([3, 1], 4) == [1, 3]


@given(st.one_of(st.integers(), st.text(), st.lists(st.one_of(st.integers(-2, 6), st.booleans(), st.text()))))
def test_any_other_value_is_refused_by_key(chosen: object) -> None:
    try:
        layers = layers_of(chosen, 4)
    except ConfigError as error:
        assert error.key == "layer"
    else:
        assert layers and set(layers) <= set(range(5)) and len(set(layers)) == len(layers)


def test_lists_of_settings_become_every_combination() -> None:
    found = list(variants({"name": "topk", "lr": [0.1, 0.2], "k": 4, "seed": [0, 1]}))
    assert len(found) == 4
    assert {(one["lr"], one["seed"]) for one in found} == {(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)}
    assert all(one["k"] == 4 and one["name"] == "topk" for one in found)


def test_a_value_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="sae.k"):
        list(variants({"k": [4, 4]}))


@pytest.mark.parametrize(
    ("k_by_layer", "sae", "key"),
    [
        ({5: 4}, {"k": 4, "latents": 8}, "k_by_layer.5"),
        ({2: 9}, {"k": 4, "latents": 8}, "k_by_layer.2"),
        ({2: 9}, {"k": 4, "latents": [16, 8]}, "k_by_layer.2"),
        ({2: 4}, {"latents": 8}, "k_by_layer"),
    ],
)
def test_a_k_that_no_sae_of_the_layer_can_have_is_refused_by_key(
    k_by_layer: dict[int, int], sae: dict[str, object], key: str
) -> None:
    check_k_by_layer({2: 8}, {"k": 4, "latents": [8, 16]}, 4)
    with pytest.raises(ConfigError) as refused:
        check_k_by_layer(k_by_layer, {"name": "one", **sae}, 4)
    assert refused.value.key == key


def test_numbers_of_latents_that_are_none_are_left_to_the_class_of_the_sae() -> None:
    for sae in ({"k": 4, "latents": "abc"}, {"k": 4}):
        check_k_by_layer({2: 9}, sae, 4)
