"""EleutherAI's sparsify 1: a folder named after the hook point, with `cfg.json` and `sae.safetensors`.

Inputs are not normalised.
"""

from pathlib import Path

from safetensors.torch import save_file

from bisae.cells.find import FoundCell
from bisae.convert.hook import path as module_path
from bisae.convert.source import (
    ANY,
    DTYPES,
    Foreign,
    Keys,
    assembled,
    check_keys,
    check_sizes,
    picked,
    settings,
    tensors,
    whole_k,
)
from bisae.runtime.atomic import write_json
from bisae.sae import SparseAutoencoder
from bisae.sae.architectures.raw import RawTopK

NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_pre": "b_dec"}
KEYS: Keys = {  # of all versions, also as EleutherAI/sae
    "activation": ("topk",),
    "signed": (False,),  # True: keeps the largest of either sign
    "transcode": (False,),
    "skip_connection": (False,),
    "embed_skip": (False,),
    "gram_lookup": (False,),
    "lookup_max_order": ANY,  # of gram_lookup
    "gram_table_hash": ANY,
    "n_targets": (0,),  # of transcoders over several layers
    "n_sources": (0,),
    "normalize_decoder": ANY,  # matters only in training
    "multi_topk": ANY,  # a part of the loss
    "naive_decoder": ANY,  # chooses the kernel that decodes
    "dtype": ("none", *DTYPES),
    "k": ANY,
    "d_in": ANY,
    "d_sae": ANY,
    "num_latents": ANY,
    "expansion_factor": ANY,
}
WRITES: tuple[type[SparseAutoencoder], ...] = (RawTopK,)


def read(source: Path, k: int | None) -> Foreign:
    """Read a TopK SAE. Transcoders, group-max SAEs and all others are refused."""
    path = source / "cfg.json"
    cfg = settings(path)
    check_keys(cfg, KEYS, path)
    weights = picked(tensors(source / "sae.safetensors"), NAMES, source)
    sae = assembled(RawTopK, weights, source, k=whole_k(k, path, cfg.get("k")))
    sizes: dict[str, float] = {"d_in": sae.d_model, "d_sae": sae.latents, "num_latents": sae.latents}
    if not cfg.get("num_latents"):
        sizes |= {"num_latents": 0, "expansion_factor": sae.latents / sae.d_model}
    check_sizes(cfg, sizes, path)
    hook = source.resolve().name
    return Foreign(sae, hook if "." in hook or hook == "embed_tokens" else None)


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """Write an SAE of one of WRITES; reading it gives the same codes and reconstructions."""
    assert isinstance(sae, RawTopK)
    place = folder / module_path(cell)
    place.mkdir()
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu().contiguous() for tensor in sae.weights)
    stored = {"encoder.weight": W_enc, "encoder.bias": b_enc, "W_dec": W_dec, "b_dec": b_pre}
    save_file(stored, place / "sae.safetensors")
    cfg = {"activation": "topk", "num_latents": sae.latents, "k": sae.k, "normalize_decoder": True, "d_in": sae.d_model}
    write_json(place / "cfg.json", cfg)
