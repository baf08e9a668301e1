"""Run by an interpreter that has another library, without bisae: random SAEs of it, and what it makes of ours.

python peer.py <library> make <folder>    a folder a case: the SAE as the library saves it, and `answers.safetensors`
python peer.py <library> use <folder>     in each of its folders: the SAE in `sae/` on `x` of `question.safetensors`
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

D_MODEL, LATENTS, K, TOKENS = 8, 24, 4, 12


def activations(tokens: int = TOKENS, d_model: int = D_MODEL) -> Tensor:
    """Rows of very different norms, not around zero."""
    x = torch.randn(tokens, d_model) + 0.5
    return x * torch.logspace(-1, 1.5, tokens)[:, None]


def randomise(sae: torch.nn.Module) -> None:
    """Zeros would hide a bias that is left out, and unit norms a norm."""
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)


def saelens_make(folder: Path) -> None:
    lens: Any = importlib.import_module("sae_lens")
    topk, standard = (lens.TopKSAE, lens.TopKSAEConfig), (lens.StandardSAE, lens.StandardSAEConfig)
    jumprelu = lens.JumpReLUSAE, lens.JumpReLUSAEConfig
    batch = lens.BatchTopKTrainingSAE, lens.BatchTopKTrainingSAEConfig
    nested = lens.MatryoshkaBatchTopKTrainingSAE, lens.MatryoshkaBatchTopKTrainingSAEConfig
    for name, (kind, config), settings in (
        ("topk", topk, {"k": K}),
        ("topk_rescaled", topk, {"k": K, "rescale_acts_by_decoder_norm": True}),
        ("topk_unit", topk, {"k": K, "normalize_activations": "constant_norm_rescale"}),
        ("standard", standard, {}),
        ("standard_uncentred", standard, {"apply_b_dec_to_input": False}),
        ("jumprelu", jumprelu, {}),
        ("jumprelu_unit", jumprelu, {"normalize_activations": "constant_norm_rescale"}),
        ("batchtopk", batch, {"k": K}),
        ("matryoshka_batchtopk", nested, {"k": K, "matryoshka_widths": [8, LATENTS]}),
    ):
        metadata = lens.saes.sae.SAEMetadata(model_name="toy", hook_name="blocks.1.hook_resid_post")
        sae = kind(config(d_in=D_MODEL, d_sae=LATENTS, metadata=metadata, **settings))
        randomise(sae)
        if hasattr(sae, "topk_threshold"):
            sae.topk_threshold.fill_(0.5)
        getattr(sae, "save_inference_model", sae.save_model)(folder / name)
        answer(folder / name, activations(), saelens_load(folder / name))


def saelens_load(folder: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    lens: Any = importlib.import_module("sae_lens")
    sae = lens.SAE.load_from_disk(str(folder))
    return lambda x: (sae.encode(x), sae(x))


def sparsify_make(folder: Path) -> None:
    sparsify: Any = importlib.import_module("sparsify")
    sae = sparsify.SparseCoder(D_MODEL, sparsify.SparseCoderConfig(num_latents=LATENTS, k=K))
    randomise(sae)
    sae.save_to_disk(folder / "layers.1")
    answer(folder / "layers.1", activations(), sparsify_load(folder))


def sparsify_load(folder: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    sparsify: Any = importlib.import_module("sparsify")
    (sae,) = sparsify.SparseCoder.load_many(str(folder), local=True).values()

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices, _ = sae.encode(x)
        return torch.zeros(len(x), sae.num_latents).scatter_(1, indices, values), sae.decode(values, indices)

    return run


def dictionary_learning_make(folder: Path) -> None:
    trainers: Any = importlib.import_module("dictionary_learning.trainers.top_k")
    dictionary: Any = importlib.import_module("dictionary_learning.dictionary")
    batch: Any = importlib.import_module("dictionary_learning.trainers.batch_top_k")
    nested: Any = importlib.import_module("dictionary_learning.trainers.matryoshka_batch_top_k")
    for name, kind, arguments in (
        ("AutoEncoderTopK", trainers.AutoEncoderTopK, {"k": K}),
        ("AutoEncoder", dictionary.AutoEncoder, {}),
        ("JumpReluAutoEncoder", dictionary.JumpReluAutoEncoder, {}),
        ("BatchTopKSAE", batch.BatchTopKSAE, {"k": K}),
        ("MatryoshkaBatchTopKSAE", nested.MatryoshkaBatchTopKSAE, {"k": K, "group_sizes": [8, LATENTS - 8]}),
    ):
        sae = kind(D_MODEL, LATENTS, **arguments)
        randomise(sae)
        if "BatchTopK" in name:
            sae.threshold.fill_(0.5)
        (folder / name).mkdir(parents=True)
        torch.save(sae.state_dict(), folder / name / "ae.pt")
        trainer = {"dict_class": name, "layer": 1, "submodule_name": "resid_post_layer_1", **arguments}
        (folder / name / "config.json").write_text(json.dumps({"trainer": trainer}))
        answer(folder / name, activations(), dictionary_learning_load(folder / name))


def dictionary_learning_load(folder: Path) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    utils: Any = importlib.import_module("dictionary_learning.utils")
    sae, _ = utils.load_dictionary(str(folder), device="cpu")
    return lambda x: (sae.encode(x), sae(x))


@torch.no_grad()
def answer(folder: Path, x: Tensor, run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
    codes, reconstruction = run(x)
    found = {"x": x, "codes": codes, "reconstruction": reconstruction}
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / "answers.safetensors")


MAKE = {"saelens": saelens_make, "sparsify": sparsify_make, "dictionary_learning": dictionary_learning_make}
LOAD = {"saelens": saelens_load, "sparsify": sparsify_load, "dictionary_learning": dictionary_learning_load}

if __name__ == "__main__":
    torch.manual_seed(0)
    library, verb, place = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if verb == "make":
        MAKE[library](place)
    else:
        for question in place.glob("*/question.safetensors"):
            answer(question.parent, load_file(question)["x"], LOAD[library](question.parent / "sae"))
