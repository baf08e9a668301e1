import pytest
from hydra.errors import InstantiationException

from bisae.config.instantiate import instantiate
from bisae.runtime.errors import ConfigError


def test_a_config_error_comes_out_as_it_is() -> None:
    with pytest.raises(ConfigError, match="^sae.k=9: must be between"):
        instantiate({"_target_": "bisae.sae.TopK", "d_model": 4, "latents": 8, "k": 9})


def test_a_wrong_argument_is_named_with_the_class() -> None:
    with pytest.raises(ConfigError, match=r"_target_=bisae.sae.TopK: .*unexpected keyword argument 'wrong'"):
        instantiate({"_target_": "bisae.sae.TopK", "d_model": 4, "latents": 8, "k": 2, "wrong": 9})


def test_another_error_keeps_hydras_account_of_the_node() -> None:
    with pytest.raises(InstantiationException, match="nowhere"):
        instantiate({"_target_": "bisae.nowhere.Nothing"})
