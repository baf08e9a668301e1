import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bisae.sae import (
    BatchTopK,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    SparseAutoencoder,
    TopK,
    Weights,
    load,
    load_metadata,
    save,
)
from tests.sae.dense_reference import random_weights


def randomized(sae: SparseAutoencoder) -> SparseAutoencoder:
    """No parameter keeps a value that a constructor could have made."""
    with torch.no_grad():
        for parameter, value in zip(sae.weights, random_weights(sae.latents, sae.d_model, seed=5), strict=True):
            parameter.copy_(value)
        for name, value in sae.state_dict().items():
            if name not in Weights._fields:  # thresholds
                value.uniform_()
    return sae


SAES = [
    TopK(6, 20, k=3, seed=7, aux_k=2, aux_coefficient=0.25),
    ReLUL1(6, 20, l1=0.3, seed=7),
    ReLUL1(6, 20, l1=0.3, encoder_bias=True),
    TopK(6, 20, k=3).double(),
    BatchTopK(6, 20, k=3, threshold_rate=0.2, seed=7, aux_k=2, aux_coefficient=0.25),
    Matryoshka(6, 20, k=3, groups="1/4+3/4", threshold_rate=0.2, seed=7, aux_k=2, aux_coefficient=0.25),
    JumpReLU(6, 20, l0=0.3, initial_threshold=0.1, bandwidth=0.2, seed=7).double(),
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(randomized(TopK(6, 20, k=3)), tmp_path, layer=4)
    return tmp_path


@pytest.mark.parametrize("sae", SAES)
def test_an_sae_comes_back_bit_by_bit(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save(randomized(sae), tmp_path / "new" / "folder")
    found = load(tmp_path / "new" / "folder")
    assert type(found) is type(sae)
    assert found.arguments == sae.arguments
    after = found.state_dict(keep_vars=True)
    for name, before in sae.state_dict(keep_vars=True).items():
        assert torch.equal(before, after[name])
        assert (before.dtype, before.requires_grad) == (after[name].dtype, after[name].requires_grad)


def test_the_arguments_hold_every_setting_of_the_constructor() -> None:
    assert SAES[0].arguments == {
        "d_model": 6, "latents": 20, "k": 3, "seed": 7, "aux_k": 2, "aux_coefficient": 0.25
    }  # fmt: skip
    assert SAES[2].arguments == {"d_model": 6, "latents": 20, "l1": 0.3, "seed": 0, "encoder_bias": True}


def test_a_loaded_sae_trains_on(saved: Path) -> None:
    sae = load(saved)
    sae.objective(torch.nn.functional.normalize(torch.randn(5, 6), dim=1)).loss.backward()
    assert sae.W_enc.grad is not None


def test_metadata_comes_back(saved: Path) -> None:
    assert load_metadata(saved) == {"layer": 4}


def test_saving_leaves_two_files_and_replaces_what_was_there(saved: Path) -> None:
    save(ReLUL1(4, 8, l1=1.0), saved)
    assert sorted(p.name for p in saved.iterdir()) == ["sae.json", "sae.safetensors"]
    assert isinstance(load(saved), ReLUL1)


def test_metadata_without_a_json_form_changes_nothing(saved: Path) -> None:
    with pytest.raises(TypeError):
        save(ReLUL1(4, 8, l1=1.0), saved, folder_object=object())
    assert isinstance(load(saved), TopK)


def test_a_save_cut_off_half_way_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bisae.sae.store.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        save(randomized(TopK(6, 20, k=4)), saved)
    with pytest.raises(FileNotFoundError, match="sae.json"):
        load(saved)


def test_missing_weights_are_named(saved: Path) -> None:
    (saved / "sae.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="sae.safetensors"):
        load(saved)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_weights_are_named(saved: Path, kept: int) -> None:
    path = saved / "sae.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="sae.safetensors: truncated"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "gated"}, "unknown architecture 'gated', known: topk, relu_l1"),
        ({"architecture": ["topk"]}, "unknown architecture"),
        ({"format": 2}, "format 2, this version reads 1"),
        ({"arguments": [1]}, "must be objects"),
        ({"arguments": {"d_model": 6, "latents": 20}}, "make no topk SAE"),
        ({"arguments": {"d_model": 6, "latents": 20, "k": 21}}, "k=21"),
        ({"other": 1}, "not written by bisae"),
    ],
)
def test_a_wrong_card_is_named(saved: Path, change: dict[str, object], message: str) -> None:
    path = saved / "sae.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message) as caught:
        load(saved)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_card_that_is_no_json_object_is_named(saved: Path, text: str) -> None:
    (saved / "sae.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="sae.json: not"):
        load(saved)


def test_weights_of_another_shape_are_named(saved: Path) -> None:
    path = saved / "sae.safetensors"
    save_file(load_file(path) | {"b_enc": torch.zeros(21)}, path)
    with pytest.raises(ValueError, match=r"sae.safetensors: b_enc has shape \(21,\), but sae.json needs \(20,\)"):
        load(saved)


def test_foreign_weights_are_named(saved: Path) -> None:
    save_file({"encoder.weight": torch.zeros(20, 6)}, saved / "sae.safetensors")
    with pytest.raises(ValueError, match="sae.safetensors: holds encoder.weight"):
        load(saved)
