"""SAE classes of a user's own: refused before training, or saved, read again and never taken for another."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

import bisae
from bisae.runtime.errors import Refused
from bisae.sae import Codes, SparseAutoencoder, TopK, load, save
from bisae.sae.architectures.batch_topk import batch_top_k
from bisae.sae.architectures.raw import RawInputs
from bisae.sae.encoder import top_k
from bisae.sae.objective import Objective, topk_objective
from bisae.sae.own import check_own, named_classes
from bisae.sae.store import KINDS, TRAINED_OTHERWISE, is_shipped
from tests.sae.test_store import randomized

HERE = __name__
D_MODEL, LATENTS = 6, 20
ARGUMENTS: dict[str, Any] = {"d_model": D_MODEL, "latents": LATENTS, "k": 4}


class Half(TopK):
    """Half as many latents a token as TopK, and in training too."""

    architecture = "half"

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations, self.k // 2)

    def _objective(self, x: Float[Tensor, "token d_model"]) -> Objective:
        return topk_objective(x, self.weights, self.k // 2)


class HalfOfRaw(RawInputs, Half):
    architecture = "half_of_raw"


class Same(TopK):
    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations, 2)


class Child(Half):
    pass


class Twin(Half):
    architecture = "half"


class Shipped(TopK):
    architecture = "batch_topk"


class OfBatch(TopK):
    architecture = "of_batch"

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return batch_top_k(pre_activations, self.k)


class Louder(TopK):
    architecture = "louder"

    def decode(self, codes: Codes) -> Float[Tensor, "token d_model"]:
        return super().decode(codes) * 1.1


class Scaled(TopK):
    """Whose `arguments` leave out the scale."""

    architecture = "scaled"

    def __init__(self, d_model: int, latents: int, k: int, scale: float = 1.0, **settings: Any) -> None:
        super().__init__(d_model, latents, k, **settings)
        self.scale = scale

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations * self.scale, self.k)


class Forgets(TopK):
    """What it learns is in no buffer."""

    architecture = "forgets"
    steps = 0

    def objective(self, *arguments: Any) -> Any:
        self.steps += 1
        return super().objective(*arguments)

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations * (1 + self.steps), self.k)


class OwnEncode(TopK):
    architecture = "own_encode"

    def encode(self, activation: Float[Tensor, "token d_model"]) -> Codes:
        return super().encode(activation * 0 + 1)


class StateOfTensors(TopK):
    """Whose extra state no save could hold."""

    architecture = "state_of_tensors"

    def extra_state(self) -> dict[str, Any]:
        return {"scale": torch.ones(1)}


class StateUnread(TopK):
    """Who cannot take its extra state back."""

    architecture = "state_unread"

    def extra_state(self) -> dict[str, Any]:
        return {"scale": 1.0}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.scale = state["factor"]


class EncodesByState(TopK):
    """Whose codes depend on what is in saves alone, so that a cell would lose it."""

    architecture = "encodes_by_state"
    steps = 0

    def objective(self, *arguments: Any) -> Any:
        self.steps += 1
        return super().objective(*arguments)

    def extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]

    def select(self, pre_activations: Float[Tensor, "token latent"]) -> Codes:
        return top_k(pre_activations * (1 + self.steps), self.k)


class NoSAE(nn.Module):
    def __init__(self, **arguments: int) -> None:
        super().__init__()


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def test_every_sae_of_the_package_is_in_its_list() -> None:
    ours = {kind for kind in subclasses(SparseAutoencoder) if kind.__module__.startswith(f"{bisae.__name__}.")}
    abstract = {SparseAutoencoder, RawInputs}
    assert ours - abstract == {*KINDS, *TRAINED_OTHERWISE}
    assert len({kind.architecture for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", [Half, HalfOfRaw])
def test_an_sae_of_an_own_class_is_read_as_that_class_only_where_it_is_given(kind: type[TopK], tmp_path: Path) -> None:
    sae = randomized(kind(**ARGUMENTS))
    save(sae, tmp_path)
    back = load(tmp_path, classes=[Half, HalfOfRaw])
    x = torch.randn(9, D_MODEL)
    assert type(back) is kind and not back.training
    assert torch.equal(back.encode(x).dense(), sae.encode(x).dense())
    with pytest.raises(
        ValueError, match=rf"class {HERE}\.{kind.__name__}, .* give sae_classes=\[{HERE}\.{kind.__name__}"
    ):
        load(tmp_path)


@pytest.mark.parametrize("kind", [Same, Child, Shipped])
def test_a_class_without_an_architecture_of_its_own_is_neither_saved_nor_given_to_load(
    kind: type[TopK], tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} needs an architecture of its own"):
        save(kind(**ARGUMENTS), tmp_path)
    assert not list(tmp_path.iterdir())
    save(TopK(**ARGUMENTS), tmp_path)
    with pytest.raises(TypeError, match="needs an architecture of its own"):
        load(tmp_path, classes=[kind])


def test_an_sae_is_not_read_as_a_class_that_has_changed_since(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(randomized(Half(**ARGUMENTS)), tmp_path)
    monkeypatch.setattr(Half, "select", TopK.select)
    with pytest.raises(ValueError, match="Half encodes differently than when this SAE was saved"):
        load(tmp_path, classes=[Half])


def test_a_file_names_a_class_but_never_makes_bisae_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Half(**ARGUMENTS), tmp_path)
    card = json.loads((tmp_path / "sae.json").read_text())
    (tmp_path / "sae.json").write_text(json.dumps({**card, "class": "planted.Class"}))
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="of the class planted.Class"):
        load(tmp_path)


@pytest.mark.parametrize("kind", [Half, HalfOfRaw, Scaled])
def test_an_own_class_that_keeps_to_the_rules_may_be_trained(kind: type[TopK]) -> None:
    sae = kind(**ARGUMENTS)
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    drawn = torch.get_rng_state()
    check_own(sae, "mine", LATENTS)
    assert all(torch.equal(before[name], value) for name, value in sae.state_dict().items())
    assert sae.training and torch.equal(torch.get_rng_state(), drawn)


def test_the_shipped_ways_to_train_a_topk_are_no_own_classes(tmp_path: Path) -> None:
    sae = TopK(**ARGUMENTS)
    sae.set_candidates(8)
    assert is_shipped(type(sae))
    check_own(sae, "mine", LATENTS)
    save(sae, tmp_path)
    assert type(load(tmp_path)) is TopK


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Same(**ARGUMENTS), "Same needs an architecture of its own"),
        (Child(**ARGUMENTS), "Child needs an architecture of its own"),
        (Shipped(**ARGUMENTS), "Shipped needs an architecture of its own"),
        (OfBatch(**ARGUMENTS), "must not depend on the other tokens of its batch"),
        (Louder(**ARGUMENTS), "`decode` must be codes @ W_dec"),
        (Scaled(**ARGUMENTS, scale=3.0), "do not make it again|made again .* encodes differently"),
        (Forgets(**ARGUMENTS), "made again of its `arguments` and state_dict.. encodes differently"),
        (StateOfTensors(**ARGUMENTS), r"extra_state\(\) do not make it again: TypeError"),
        (StateUnread(**ARGUMENTS), r"extra_state\(\) do not make it again: KeyError: 'factor'"),
        (EncodesByState(**ARGUMENTS), "made again of its `arguments` and state_dict.. encodes differently"),
        (OwnEncode(**ARGUMENTS), "`encode` must give the codes of"),
        (NoSAE(**ARGUMENTS), "makes a NoSAE; must make a subclass"),
        (type("Local", (TopK,), {"architecture": "local"})(**ARGUMENTS), "cannot be imported by that name"),
        (Half(**{**ARGUMENTS, "latents": 21}), "has 21 latents, but its setting latents is 20"),
    ],
    ids=lambda made: type(made).__name__,
)
def test_what_the_rest_of_bisae_cannot_work_with_is_refused_before_training(made: Any, says: str) -> None:
    with pytest.raises(Refused, match=f"^_target_=mine: .*{says}"):
        check_own(made, "mine", LATENTS)


def test_the_classes_of_a_command_are_named_in_full() -> None:
    assert named_classes([f"{HERE}.Half", f"{HERE}.HalfOfRaw"]) == (Half, HalfOfRaw)
    assert named_classes(f"{HERE}.Half") == (Half,) and named_classes([]) == ()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["nowhere.Half"], "sae_classes=nowhere.Half: must be the full name of a class"),
        ([3], "sae_classes=3: must be the full name"),
        ([f"{HERE}.NoSAE"], "is no subclass of bisae.sae.SparseAutoencoder"),
        ([f"{HERE}.Same"], "needs an architecture of its own"),
        ([f"{HERE}.Half", f"{HERE}.Twin"], "its architecture 'half' is that of .*Half too"),
    ],
)
def test_what_is_no_class_of_ones_own_is_refused(names: list[Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        named_classes(names)
