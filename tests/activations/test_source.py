from pathlib import Path

import pytest
import torch

from bisae.activations.cached import Cached
from bisae.activations.rolling import Rolling
from bisae.activations.store import Store, computed
from bisae.activations.streaming import Streaming
from bisae.runtime.errors import Refused
from bisae.runtime.ranks import ALONE
from tests.activations.fake_source import D_MODEL, SIZES, FakeSource


class Constant(FakeSource):
    """Shard 2 of layer 3 is the same vector for every token."""

    vector = torch.zeros(D_MODEL)

    def values(self, shard: int, layer: int) -> torch.Tensor:
        if (shard, layer) == (2, 3):
            return self.vector.expand(SIZES[shard], D_MODEL).bfloat16()
        return super().values(shard, layer)


class Bias(Constant):
    vector = torch.linspace(-1, 1, D_MODEL)


@pytest.mark.parametrize(("source", "are"), [(Constant, "0"), (Bias, "the same vector")])
def test_activations_that_are_the_same_for_all_tokens_are_refused_by_layer_and_shard(
    source: type[Constant], are: str
) -> None:
    with pytest.raises(Refused, match=rf"^layer=3: all 50 activations of shard 2 are {are}: "):
        computed(source(), 2, SIZES[2], [1, 3])


def test_a_shard_of_one_token_or_a_repeated_first_token_is_not_constant() -> None:
    assert computed(FakeSource(), 3, 1, [1])[1].shape == (1, D_MODEL)
    repeated = FakeSource()
    values = repeated.values(0, 1)
    values[-1] = values[0]
    repeated.values = lambda shard, layer: values  # type: ignore[method-assign]
    assert torch.equal(computed(repeated, 0, SIZES[0], [1])[1], values)


@pytest.mark.parametrize("kind", ["cached", "rolling", "streaming"])
def test_every_store_refuses_them(kind: str, tmp_path: Path) -> None:
    stores: dict[str, Store] = {
        "cached": Cached(str(tmp_path), 1, evict=False, verify=True, layers=[]),
        "rolling": Rolling(str(tmp_path), 1),
        "streaming": Streaming(),
    }
    with pytest.raises(Refused, match=r"^layer=3: all 50 activations of shard 2 are 0"):
        activations = stores[kind].open(Constant(), [3], 123, "job", ALONE, lambda done, total: None)
        activations.window(0, 123, lambda: torch.arange(123).numpy(), None)
