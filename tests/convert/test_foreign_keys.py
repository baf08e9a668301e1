"""Every key and every tensor of another library's files is used, harmless, or refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file
from torch import Tensor

from bisae.cli.convert import convert
from bisae.convert.formats import FORMATS
from bisae.convert.hook import read_of
from bisae.runtime.errors import ConfigError, Refused
from tests.conftest import ROOT
from tests.convert.peer import D_MODEL, LATENTS, K, activations
from tests.convert.saes import apart, results
from tests.convert.test_formats import FIXTURES

# As SAELens 1 and 2 wrote it: the whole training config (of gpt2-small-res-jb).
FLAT = {
    "model_name": "toy",
    "hook_point": "blocks.{layer}.hook_resid_pre",
    "hook_point_layer": 2,
    "hook_point_head_index": None,
    "dataset_path": "Skylion007/openwebtext",
    "is_dataset_tokenized": False,
    "context_size": 128,
    "use_cached_activations": False,
    "cached_activations_path": "activations",
    "d_in": D_MODEL,
    "n_batches_in_buffer": 128,
    "total_training_tokens": 300_000_000,
    "store_batch_size": 32,
    "device": "mps",
    "seed": 42,
    "dtype": "torch.float32",
    "b_dec_init_method": "geometric_median",
    "expansion_factor": 3,
    "from_pretrained_path": None,
    "l1_coefficient": 8e-05,
    "lr": 0.0004,
    "lr_scheduler_name": None,
    "lr_warm_up_steps": 5000,
    "train_batch_size": 4096,
    "use_ghost_grads": False,
    "feature_sampling_window": 1000,
    "feature_sampling_method": None,
    "resample_batches": 1028,
    "feature_reinit_scale": 0.2,
    "dead_feature_window": 5000,
    "dead_feature_estimation_method": "no_fire",
    "dead_feature_threshold": 1e-08,
    "log_to_wandb": True,
    "wandb_project": "mats",
    "wandb_entity": None,
    "wandb_log_frequency": 100,
    "n_checkpoints": 10,
    "checkpoint_path": "checkpoints",
    "d_sae": LATENTS,
    "tokens_per_buffer": 67108864,
    "run_name": "toy",
}
# As versions 3 to 5 wrote it.
SIDE_BY_SIDE = {
    "architecture": "standard",
    "d_in": D_MODEL,
    "d_sae": LATENTS,
    "dtype": "float32",
    "device": "cuda",
    "model_name": "toy",
    "hook_name": "blocks.1.hook_resid_post",
    "hook_layer": 1,
    "hook_head_index": None,
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "sae_lens_training_version": "4.0.5",
    "prepend_bos": True,
    "dataset_path": "c4",
    "dataset_trust_remote_code": True,
    "context_size": 128,
    "normalize_activations": "none",
    "neuronpedia_id": None,
    "model_from_pretrained_kwargs": {"center_writing_weights": False},
    "seqpos_slice": [None],
    "noise_scale": 0.0,
    "mse_loss_normalization": None,
}
OF_4 = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}


def old_saelens(folder: Path, cfg: dict[str, Any], *extra: str) -> dict[str, Tensor]:
    """A random SAE as SAELens before 6 saved it, with `extra` tensors of a latent's; returns the tensors."""
    shapes = {"W_enc": (D_MODEL, LATENTS), "b_enc": (LATENTS,), "W_dec": (LATENTS, D_MODEL), "b_dec": (D_MODEL,)}
    found = {name: torch.randn(shape) * 0.5 for name, shape in shapes.items()}
    found |= {name: torch.rand(LATENTS) + 0.2 for name in extra}
    (folder / "cfg.json").write_text(json.dumps(cfg))
    save_file(found, folder / "sae_weights.safetensors")
    save_file({"sparsity": torch.zeros(LATENTS)}, folder / "sparsity.safetensors")
    return found


def formula(cfg: dict[str, Any], tensors: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """SAELens' own encode and decode, in float64."""
    found = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    rows = x.double().numpy()
    scale = np.ones((len(rows), 1))
    if cfg.get("normalize_activations") == "constant_norm_rescale":
        scale = D_MODEL**0.5 / np.linalg.norm(rows, axis=1, keepdims=True)
    centre = found["b_dec"] if cfg.get("apply_b_dec_to_input", True) else 0
    pre = (rows * scale - centre) @ found["W_enc"] + found["b_enc"]
    codes = np.maximum(pre, 0)
    if cfg.get("activation_fn_str") == "topk":
        codes[pre < np.sort(pre, axis=1)[:, -K, None]] = 0
    if cfg.get("architecture") == "jumprelu":
        codes[pre <= found["threshold"]] = 0
    used = codes * found.get("scaling_factor", 1)
    return torch.tensor(codes), torch.tensor((used @ found["W_dec"] + found["b_dec"]) / scale)


@pytest.mark.parametrize(
    ("base", "change", "extra"),
    [
        (FLAT, {}, ()),
        (FLAT, {"normalize_activations": False, "activation_fn": "relu"}, ()),
        (SIDE_BY_SIDE, {}, ()),
        (SIDE_BY_SIDE, OF_4, ()),
        (SIDE_BY_SIDE, {**OF_4, "apply_b_dec_to_input": False}, ()),
        (SIDE_BY_SIDE, {**OF_4, "architecture": "topk"}, ()),
        (SIDE_BY_SIDE, {**OF_4, "normalize_activations": "constant_norm_rescale"}, ()),
        (SIDE_BY_SIDE, {"architecture": "jumprelu", "apply_b_dec_to_input": False}, ("threshold",)),
        (SIDE_BY_SIDE, {"architecture": "jumprelu", "normalize_activations": None}, ("threshold",)),
        (SIDE_BY_SIDE, {"finetuning_scaling_factor": True}, ("scaling_factor",)),
        (SIDE_BY_SIDE, {**OF_4, "finetuning_scaling_factor": True}, ("scaling_factor",)),
    ],
)
def test_saelens_before_6_is_read_as_its_formula_in_float64_has_it(
    base: dict[str, Any], change: dict[str, Any], extra: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    cfg, x = {**base, **change}, activations()
    tensors = old_saelens(tmp_path, cfg, *extra)
    foreign = FORMATS["saelens"].read(tmp_path, None)
    codes, reconstruction = results(foreign.sae, x)
    theirs, reconstructed = formula(cfg, tensors, x)
    scale = D_MODEL**0.5 if cfg.get("normalize_activations") == "constant_norm_rescale" else 1
    assert apart(codes.double() * scale, theirs) < 1e-5 and apart(reconstruction.double(), reconstructed) < 1e-5
    assert foreign.hook is not None and read_of(foreign.hook) == (2, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"activation_fn_str": "tanh-relu"}, "activation_fn is 'tanh-relu'"),
        ({"activation_fn_str": "topk"}, "^k=None"),
        ({**OF_4, "activation_fn_kwargs": {"k": K, "postact_fn": "identity"}}, "postact_fn is 'identity'"),
        ({"activation_fn_kwargs": {"k": K}}, "k is 4: a key that is not known"),
        ({"architecture": "jumprelu", "activation_fn_str": "topk"}, "activation_fn is 'topk'"),
        ({"architecture": "gated"}, "architecture is 'gated'"),
        ({"architecture": "transcoder", "d_out": 4}, "architecture is 'transcoder'"),
        ({"normalize_activations": True}, "normalize_activations is True"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'"),
        ({"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input is 'false'"),
        ({"hook_head_index": 3}, "hook_head_index is 3"),
        ({"hook_name": "blocks.1.attn.hook_z"}, "reshape_activations is 'hook_z'"),
        ({"hook_point": "blocks.0.hook_resid_post"}, "hook_point is 'blocks.0.hook_resid_post', but hook_name is"),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "center_writing_weights is True"),
        ({"model_from_pretrained_kwargs": {"rescale": 2}}, "rescale is 2: a key that is not known"),
        ({"model_from_pretrained_kwargs": 3}, "model_from_pretrained_kwargs is 3"),
        ({"metadata": {"hook_head_index": 3}}, "hook_head_index is 3"),
        ({"metadata": {"hook_name_out": "blocks.1.hook_mlp_out"}}, "hook_name_out is 'blocks.1.hook_mlp_out'"),
        ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm is True, which belongs to topk"),
        ({"k": K}, "k is 4, which belongs to topk"),
        ({"d_in": 9}, "d_in is 9, but the tensors have 8"),
        ({"d_sae": 25}, "d_sae is 25, but the tensors have 24"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"jump_relu_threshold": 0.1}, "jump_relu_threshold is 0.1: a key that is not known"),
    ],
)
def test_what_saelens_before_6_may_say_besides_is_refused_by_name(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    old_saelens(tmp_path, {**SIDE_BY_SIDE, **change})
    with pytest.raises(Refused, match=says):
        FORMATS["saelens"].read(tmp_path, None)


def test_a_scaling_factor_of_ones_changes_nothing_and_another_is_refused_where_it_is_not_used(tmp_path: Path) -> None:
    tensors = old_saelens(tmp_path, SIDE_BY_SIDE, "scaling_factor")
    with pytest.raises(Refused, match="its scaling_factor is not 1, and finetuning_scaling_factor is false"):
        FORMATS["saelens"].read(tmp_path, None)
    save_file({**tensors, "scaling_factor": torch.ones(LATENTS)}, tmp_path / "sae_weights.safetensors")
    assert torch.equal(FORMATS["saelens"].read(tmp_path, None).sae.W_dec, tensors["W_dec"])


FILES = {
    "saelens": ("topk", "cfg.json", "sae_weights.safetensors"),
    "sparsify": ("layers.1", "cfg.json", "sae.safetensors"),
    "dictionary_learning": ("AutoEncoderTopK", "config.json", "ae.pt"),
    "llm_jp_sae": ("", "config.json", "model.safetensors"),
}


@pytest.fixture(params=FILES)
def copied(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path, Path]:
    """A format, its config and its tensors."""
    name = request.param
    case, config, weights = FILES[name]
    folder = tmp_path / "sae"
    if name == "llm_jp_sae":
        folder.mkdir()
        (folder / config).write_text(json.dumps({"d_in": D_MODEL, "num_latents": LATENTS, "k": K}))
        found = load_file(FIXTURES / "sparsify/layers.1/sae.safetensors")
        found["decoder.weight"] = found.pop("W_dec").T.contiguous()
        save_file(found, folder / weights)
    else:
        shutil.copytree(FIXTURES / name / case, folder)
    FORMATS[name].read(folder, None)  # as it is, it can be read
    return name, folder / config, folder / weights


def changed(path: Path, **keys: Any) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **keys}))


def test_a_key_nobody_knows_is_refused_by_name(copied: tuple[str, Path, Path]) -> None:
    name, config, _ = copied
    changed(config, surprise={"inside": [1]})
    with pytest.raises(Refused, match="surprise is {'inside'.*: a key that is not known; take it out of the file"):
        FORMATS[name].read(config.parent, None)


def rewritten(path: Path, **more: Tensor) -> None:
    if path.suffix == ".pt":
        torch.save({**torch.load(path, weights_only=True), **more}, path)
    else:
        save_file({**load_file(path), **more}, path)


@pytest.mark.parametrize("tensor", ["W_skip", "b_gate", "r_mag", "threshold_of_a_fork"])
def test_a_tensor_that_the_kind_of_sae_lacks_is_refused_by_name(copied: tuple[str, Path, Path], tensor: str) -> None:
    name, config, weights = copied
    rewritten(weights, **{tensor: torch.ones(LATENTS)})
    with pytest.raises(Refused, match=f"holds tensors that this kind of SAE does not have: {tensor}"):
        FORMATS[name].read(config.parent, None)


def test_weights_in_whole_numbers_are_refused(copied: tuple[str, Path, Path]) -> None:
    name, config, weights = copied
    bias = "b_enc" if name == "saelens" else "encoder.bias"
    rewritten(weights, **{bias: torch.ones(LATENTS, dtype=torch.int8)})
    with pytest.raises(Refused, match=f"{bias} is of torch.int8"):
        FORMATS[name].read(config.parent, None)


def test_a_k_other_than_the_files_is_refused(copied: tuple[str, Path, Path]) -> None:
    name, config, _ = copied
    assert FORMATS[name].read(config.parent, K).sae.arguments["k"] == K
    with pytest.raises(Refused, match=f"^k=5: .* says {K}"):
        FORMATS[name].read(config.parent, 5)


class Pickled:
    """What `torch.save(sae, ...)` leaves."""


def test_a_pickled_file_is_refused_in_our_words(copied: tuple[str, Path, Path]) -> None:
    name, config, weights = copied
    if weights.suffix != ".pt":
        weights.unlink()
        weights = weights.with_name("sae.pth")
    if name in ("dictionary_learning", "llm_jp_sae"):
        torch.save({"encoder.weight": Pickled()}, weights)
        with pytest.raises(Refused, match="could run code; save the SAE's state_dict") as refusal:
            FORMATS[name].read(config.parent, K)
        assert "weights_only" not in str(refusal.value)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"signed": True}, "signed is True; can be read: False"),
        ({"embed_skip": True}, "embed_skip is True"),
        ({"gram_lookup": True}, "gram_lookup is True"),
        ({"n_targets": 3}, "n_targets is 3"),
        ({"skip_connection": True}, "skip_connection is True"),
        ({"activation": "batchtopk"}, "activation is 'batchtopk'"),
        ({"input_unit_norm": False}, "input_unit_norm is False: a key that is not known"),
        ({"num_latents": 25}, "num_latents is 25"),
        ({"num_latents": 0, "expansion_factor": 4}, "expansion_factor is 4"),
        ({"d_in": 9}, "d_in is 9"),
        ({"num_latents": 0, "expansion_factor": 3, "multi_topk": True, "normalize_decoder": False}, None),
        ({"signed": False, "embed_skip": False, "gram_lookup": False, "lookup_max_order": 4}, None),
    ],
)
def test_a_sparsify_config_is_read_or_refused_by_the_key_that_says_it(
    keys: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    folder = shutil.copytree(FIXTURES / "sparsify/layers.1", tmp_path / "layers.1")
    changed(folder / "cfg.json", **keys)
    if says is None:
        assert FORMATS["sparsify"].read(folder, None).sae.latents == LATENTS
    else:
        with pytest.raises(Refused, match=says):
            FORMATS["sparsify"].read(folder, None)


@pytest.mark.parametrize(
    ("case", "trainer", "more", "says"),
    [
        ("AutoEncoderTopK", {"k": 5}, {}, "^k=4: .* says 5"),
        ("AutoEncoderTopK", {"normalise": True}, {}, "normalise is True"),
        ("AutoEncoderTopK", {"layer": 3}, {}, "layer is 3, but submodule_name is 'resid_post_layer_1'"),
        ("AutoEncoderTopK", {"dict_size": 25}, {}, "dict_size is 25"),
        ("AutoEncoderTopK", {}, {"buffer": {"io": "in_and_out"}}, "io is 'in_and_out'"),
        ("AutoEncoderTopK", {}, {"buffer": {"io": "out", "rescale": 2}}, "rescale is 2"),
        ("AutoEncoderTopK", {"dict_class": "GatedAutoEncoder"}, {}, "dict_class is 'GatedAutoEncoder'"),
        ("AutoEncoder", {"dict_class": "AutoEncoderTopK", "k": 4}, {}, "lacks 'b_dec'"),
        ("BatchTopKSAE", {"dict_class": "AutoEncoder"}, {}, "lacks 'bias'"),
    ],
)
def test_a_dictionary_learning_config_is_refused_by_the_key_that_says_it(
    case: str, trainer: dict[str, Any], more: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(FIXTURES / "dictionary_learning" / case, tmp_path / case)
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"trainer": {**found["trainer"], **trainer}, **more}))
    with pytest.raises(Refused, match=says):
        FORMATS["dictionary_learning"].read(folder, None)


def test_the_whole_config_of_a_dictionary_learning_trainer_is_read(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "dictionary_learning/MatryoshkaBatchTopKSAE", tmp_path / "sae")
    found = json.loads((folder / "config.json").read_text())["trainer"]
    training = {"trainer_class": "MatryoshkaBatchTopKTrainer", "lr": 2e-4, "steps": 9, "auxk_alpha": 0.03}
    training |= {"warmup_steps": 1, "decay_start": None, "threshold_beta": 0.999, "threshold_start_step": 1, "seed": 0}
    training |= {"top_k_aux": 4, "activation_dim": D_MODEL, "dict_size": LATENTS, "group_fractions": [1 / 3, 2 / 3]}
    training |= {"group_weights": [0.5, 0.5], "device": "cuda:0", "lm_name": "toy", "wandb_name": "BatchTopKSAE"}
    buffer = {"d_submodule": D_MODEL, "io": "in", "n_ctxs": 9, "ctx_len": 128, "refresh_batch_size": 9}
    buffer |= {"out_batch_size": 2048, "device": "cuda:0"}
    (folder / "config.json").write_text(json.dumps({"trainer": {**found, **training}, "buffer": buffer}))
    hook = FORMATS["dictionary_learning"].read(folder, None).hook
    assert hook == "the input of resid_post_layer_1"
    with pytest.raises(Refused, match="is not a known residual stream; give layer="):
        read_of(hook)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"architectures": ["TopKSAE"], "model_type": "topk_sae", "torch_dtype": "bfloat16"}, None),
        ({"n_dim": LATENTS, "expansion_factor": 3, "transformers_version": "4.56.0"}, None),
        ({"architectures": ["GatedSAE"]}, r"architectures is \['GatedSAE'\]"),
        ({"normalize_decoder": False}, "normalize_decoder is False"),
        ({"normalization": "scalar"}, "normalization is 'scalar': a key that is not known"),
        ({"num_latents": 25}, "num_latents is 25"),
        ({"expansion_factor": 4}, "expansion_factor is 4"),
    ],
)
@pytest.mark.parametrize("copied", ["llm_jp_sae"], indirect=True)
def test_an_llm_jp_sae_config_is_read_or_refused_by_the_key_that_says_it(
    copied: tuple[str, Path, Path], keys: dict[str, Any], says: str | None
) -> None:
    name, config, _ = copied
    changed(config, **keys)
    if says is None:
        FORMATS[name].read(config.parent, None)
    else:
        with pytest.raises(Refused, match=says):
            FORMATS[name].read(config.parent, None)


def test_a_k_for_an_sae_that_keeps_no_fixed_number_is_refused() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        source = f"source={FIXTURES}/saelens/jumprelu"
        config = compose("convert", ["from=saelens", source, "model=embedded", "k=4"])
    with pytest.raises(ConfigError, match="^k=4: an SAE of kind raw_jump_relu keeps no fixed number"):
        convert(config)
