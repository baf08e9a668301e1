"""What the libraries saved is read as they mean it, and what is written is read back. The fixtures are by peer.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bisae.convert.exported import folded
from bisae.convert.formats import FORMATS, chosen_format, must_fold
from bisae.convert.hook import path, read_of, submodule, transformer_lens
from bisae.runtime.errors import Refused
from bisae.sae import BatchTopK, JumpReLU, Matryoshka, ReLUL1, SparseAutoencoder, TopK, load, save
from bisae.sae.architectures.raw import RAW, RawJumpReLU, RawReLU, RawTopK
from tests.convert.peer import D_MODEL, K, activations
from tests.convert.saes import ARGUMENTS, CELL, apart, random_sae, results

FIXTURES = Path(__file__).parent / "fixtures"
CASES = [
    ("saelens", "topk", RawTopK, 1.0),
    ("saelens", "topk_rescaled", RawTopK, 1.0),
    ("saelens", "topk_unit", TopK, D_MODEL**0.5),
    ("saelens", "standard", RawReLU, 1.0),
    ("saelens", "standard_uncentred", RawReLU, 1.0),
    ("saelens", "jumprelu", RawJumpReLU, 1.0),
    ("saelens", "jumprelu_unit", JumpReLU, D_MODEL**0.5),
    ("saelens", "batchtopk", RawJumpReLU, 1.0),
    ("saelens", "matryoshka_batchtopk", RawJumpReLU, 1.0),
    ("sparsify", "layers.1", RawTopK, 1.0),
    ("dictionary_learning", "AutoEncoderTopK", RawTopK, 1.0),
    ("dictionary_learning", "AutoEncoder", RawReLU, 1.0),
    ("dictionary_learning", "JumpReluAutoEncoder", RawJumpReLU, 1.0),
    ("dictionary_learning", "BatchTopKSAE", RawJumpReLU, 1.0),
    ("dictionary_learning", "MatryoshkaBatchTopKSAE", RawJumpReLU, 1.0),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize(("name", "case", "kind", "scale"), CASES)
def test_what_a_library_saved_gives_its_codes_and_reconstructions(
    name: str, case: str, kind: type[SparseAutoencoder], scale: float
) -> None:
    foreign = FORMATS[name].read(FIXTURES / name / case, None)
    answers = load_file(FIXTURES / name / case / "answers.safetensors")
    codes, reconstruction = results(foreign.sae, answers["x"])
    assert type(foreign.sae) is kind and foreign.hook is not None and read_of(foreign.hook) == (2, None)
    assert apart(codes * scale, answers["codes"]) < 1e-6
    assert apart(reconstruction, answers["reconstruction"]) < 1e-6


@pytest.mark.parametrize("kind", ARGUMENTS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_written_sae_is_read_back_or_refused(name: str, kind: type[SparseAutoencoder], tmp_path: Path) -> None:
    sae, form = random_sae(kind), FORMATS[name]
    if kind not in form.WRITES:
        if RAW.get(kind) in form.WRITES:
            assert must_fold(sae, name)
        else:
            with pytest.raises(Refused, match=f"^format={name}: cannot hold a {kind.architecture} SAE"):
                must_fold(sae, name)
        return
    assert not must_fold(sae, name)
    form.write(sae, CELL, tmp_path)
    foreign = form.read(tmp_path / "layers.1" if name == "sparsify" else tmp_path, None)
    back_as = JumpReLU if isinstance(sae, BatchTopK) else kind
    assert type(foreign.sae) is back_as and (foreign.hook is None or read_of(foreign.hook) == (CELL.layer, CELL.hook))
    x = activations()
    for ours, back in zip(results(sae, x), results(foreign.sae, x), strict=True):
        assert apart(ours, back) < 1e-6
    assert torch.equal(foreign.sae.W_enc, sae.W_enc) or name == "dictionary_learning"


@pytest.mark.parametrize("kind", [TopK, ReLUL1, JumpReLU, BatchTopK, Matryoshka])
def test_a_folded_sae_is_exact_for_activations_of_its_norm(kind: type[SparseAutoencoder]) -> None:
    sae, x = random_sae(kind), torch.nn.functional.normalize(activations()) * 7.5
    raw = folded(sae, 7.5)
    codes, reconstruction = results(raw, x)
    assert apart(codes, results(sae, x)[0] * 7.5) < 1e-6 and apart(reconstruction, results(sae, x)[1]) < 1e-6
    assert apart(results(raw, 2 * x)[1], results(sae, 2 * x)[1]) > 0.01


@pytest.mark.parametrize("kind", dict.fromkeys(RAW.values()))
def test_an_sae_on_raw_inputs_is_stored_like_any_other(kind: type[SparseAutoencoder], tmp_path: Path) -> None:
    sae, x = random_sae(kind), activations()
    save(sae, tmp_path)
    back = load(tmp_path)
    assert type(back) is kind and torch.equal(results(sae, x)[1], results(back, x)[1])


def dense_topk(x: torch.Tensor, sae: SparseAutoencoder) -> torch.Tensor:
    """llm-jp-sae's forward, written out."""
    x = x / x.norm(dim=1, keepdim=True)
    found = ((x - sae.b_pre) @ sae.W_enc.T + sae.b_enc).relu().topk(K)
    return torch.zeros(len(x), sae.latents).scatter(1, found.indices, found.values) @ sae.W_dec + sae.b_pre


@pytest.mark.parametrize("layout", ["2025-09", "first", "first, on the hub"])
def test_both_layouts_of_llm_jp_sae_are_read(layout: str, tmp_path: Path) -> None:
    sae = random_sae(TopK)
    W_enc, b_enc, W_dec, b_pre = (tensor.detach() for tensor in sae.weights)
    found = {"encoder.weight": W_enc, "encoder.bias": b_enc, "b_dec": b_pre}
    if layout == "2025-09":
        save_file({**found, "decoder.weight": W_dec.T.contiguous()}, tmp_path / "model.safetensors")
    else:
        found = {name: tensor.bfloat16() for name, tensor in {**found, "W_dec": 3 * W_dec}.items()}
        with torch.no_grad():
            for name, tensor in zip(("encoder.weight", "encoder.bias", "W_dec", "b_dec"), sae.weights, strict=True):
                tensor.copy_(found[name])
        sae.normalize_decoder()
        if layout == "first":
            torch.save(found, tmp_path / "sae.pth")
        else:
            save_file(found, tmp_path / "model.safetensors")
    if layout != "first":
        (tmp_path / "config.json").write_text(json.dumps({"d_in": D_MODEL, "k": K}))
    else:
        with pytest.raises(Refused, match="^k=None: .* give k="):
            FORMATS["llm_jp_sae"].read(tmp_path, None)
    back = FORMATS["llm_jp_sae"].read(tmp_path, None if layout != "first" else K).sae
    x = activations()
    assert apart(back.reconstruct(x).x_hat.detach(), dense_topk(x, sae).detach()) < 1e-6
    torch.testing.assert_close(back.W_dec.norm(dim=1), torch.ones(24))


@pytest.mark.parametrize(
    ("name", "case", "file", "change", "says"),
    [
        ("saelens", "topk", "cfg.json", {"architecture": "gated"}, "architecture is 'gated'"),
        ("saelens", "topk", "cfg.json", {"normalize_activations": "layer_norm"}, "is 'layer_norm'"),
        ("saelens", "topk", "cfg.json", {"normalize_activations": "expected_average_only_in"}, "expected_average"),
        ("saelens", "topk", "cfg.json", {"reshape_activations": "hook_z"}, "'hook_z'"),
        ("saelens", "topk", "cfg.json", {"k": None}, "^k=None"),
        ("saelens", "topk", "cfg.json", {"k": 25}, "^k=25"),
        ("sparsify", "layers.1", "cfg.json", {"transcode": True}, "transcode is True"),
        ("sparsify", "layers.1", "cfg.json", {"activation": "groupmax"}, "'groupmax'"),
        ("dictionary_learning", "AutoEncoder", "config.json", {"trainer": {"dict_class": "GatedAutoEncoder"}}, "Gated"),
        ("dictionary_learning", "AutoEncoder", "config.json", {"trainer": None}, "no `trainer`"),
        (
            "dictionary_learning",
            "AutoEncoder",
            "config.json",
            {"trainer": {"dict_class": ["AutoEncoder"]}},
            "dict_class",
        ),
    ],
)
def test_what_ours_cannot_be_is_refused_by_what_the_file_says(
    name: str, case: str, file: str, change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(FIXTURES / name / case, tmp_path / case)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **change}))
    with pytest.raises(Refused, match=says):
        FORMATS[name].read(folder, None)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("made"),)


def test_nothing_in_a_file_is_ever_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder.weight": Bomb()}, tmp_path / "sae.pth")
    with pytest.raises(Refused, match=r"sae\.pth: is damaged, or holds Python objects, which could run code"):
        FORMATS["llm_jp_sae"].read(tmp_path, K)
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"b_dec": torch.zeros(9)}, "its tensors are"),
        ({"encoder.bias": torch.full((24,), torch.nan)}, "not finite"),
        ({"b_dec": None}, "lacks 'b_dec'"),
    ],
)
def test_tensors_that_make_no_sae_are_refused(
    tensors: dict[str, torch.Tensor | None], says: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(FIXTURES / "sparsify" / "layers.1", tmp_path / "sae")
    found = {**load_file(folder / "sae.safetensors"), **tensors}
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, folder / "sae.safetensors")
    with pytest.raises(Refused, match=says):
        FORMATS["sparsify"].read(folder, None)


def test_an_empty_folder_and_a_format_nobody_knows_are_refused(tmp_path: Path) -> None:
    for form in FORMATS.values():
        with pytest.raises(Refused, match="^source="):
            form.read(tmp_path, None)
    with pytest.raises(Refused, match="^format=numpy: choose one of saelens"):
        chosen_format("numpy")


@pytest.mark.parametrize(
    ("hook", "layer", "part"),
    [
        ("blocks.0.hook_resid_pre", 0, None),
        ("blocks.11.hook_resid_post", 12, None),
        ("model.layers.11", 12, None),
        ("transformer.h.0", 1, None),
        ("gpt_neox.layers.3", 4, None),
        ("model.embed_tokens", 0, None),
        ("resid_post_layer_8", 9, None),
        ("layers.11.mlp", 12, "mlp"),
        ("model.layers.0.self_attn.o_proj", 1, "self_attn.o_proj"),
        ("blocks.3.hook_mlp_out", 4, "mlp"),
        ("blocks.3.hook_attn_out", 4, "att"),
        ("attention_out_layer_2", 3, "att"),
    ],
)
def test_a_hook_point_is_a_layer_and_perhaps_a_part_of_its_block(hook: str, layer: int, part: str | None) -> None:
    assert read_of(hook) == (layer, part)


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("part", [None, "mlp"])
def test_where_a_cell_reads_is_read_back_from_every_name_of_it(layer: int, part: str | None) -> None:
    if layer or not part:
        cell = replace(CELL, layer=layer, identity={"activations": {"hook": part} if part else {}})
        assert {read_of(name(cell)) for name in (path, transformer_lens, submodule)} == {(layer, part)}


@pytest.mark.parametrize("hook", ["blocks.3.hook_z", "ln_final", "layers.x"])
def test_what_is_not_known_is_no_layer(hook: str) -> None:
    with pytest.raises(Refused, match=f"^source={hook}: is not a known residual stream"):
        read_of(hook)
