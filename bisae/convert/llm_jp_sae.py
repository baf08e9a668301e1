"""llm-jp-sae, the study's own library: TopK on inputs of norm 1, the same as TopK here.

This file writes the layout of September 2025, `config.json` and `model.safetensors`. It also reads the first layout:
`sae.pth`, or `model.safetensors` with a `W_dec`, mostly in bfloat16; that code normalises W_dec whenever it is used.
"""

from pathlib import Path

from safetensors.torch import save_file

from bisae.cells.find import FoundCell
from bisae.convert.source import (
    DTYPES,
    Foreign,
    Keys,
    any_value,
    assembled,
    check_keys,
    check_sizes,
    picked,
    refused,
    settings,
    tensors,
    whole_k,
)
from bisae.runtime.atomic import write_json
from bisae.sae import SparseAutoencoder, TopK

SHARED = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "b_pre": "b_dec"}
KEYS: Keys = {
    "architectures": (["TopKSAE"], ["SparseAutoEncoder"]),
    "model_type": ("topk_sae", "", None),
    "normalize_decoder": (True,),
    "dtype": DTYPES,
    "torch_dtype": DTYPES,
    **any_value("k d_in num_latents n_dim expansion_factor"),
    **any_value("transformers_version _name_or_path auto_map"),  # of transformers; no code is run
}
WRITES: tuple[type[SparseAutoencoder], ...] = (TopK,)


def read(source: Path, k: int | None) -> Foreign:
    """Read a TopK SAE. The files do not name the layer, and `sae.pth` does not name k."""
    path = next((path for name in ("model.safetensors", "sae.pth") if (path := source / name).is_file()), None)
    if path is None:
        raise refused(source, "holds neither model.safetensors nor sae.pth")
    config = settings(source / "config.json") if (source / "config.json").is_file() else {}
    check_keys(config, KEYS, source / "config.json")
    stored = tensors(path)
    first = "W_dec" in stored
    weights = picked(stored, {**SHARED, "W_dec": "W_dec" if first else "decoder.weight.T"}, path)
    sae = assembled(TopK, weights, path, k=whole_k(k, source, config.get("k")))
    sizes = {"d_in": sae.d_model, "num_latents": sae.latents, "n_dim": sae.latents}
    check_sizes(config, {**sizes, "expansion_factor": sae.latents / sae.d_model}, source / "config.json")
    if first:
        sae.normalize_decoder()
    return Foreign(sae, None)


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """Write an SAE of one of WRITES; reading it gives the same codes and reconstructions."""
    assert isinstance(sae, TopK)
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu() for tensor in sae.weights)
    stored = {"encoder.weight": W_enc, "encoder.bias": b_enc, "decoder.weight": W_dec.T, "b_dec": b_pre}
    contiguous = {name: tensor.contiguous() for name, tensor in stored.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": ["TopKSAE"], "model_type": "topk_sae", "d_in": sae.d_model, "num_latents": sae.latents}
    write_json(folder / "config.json", {**config, "k": sae.k, "dtype": "float32"})
