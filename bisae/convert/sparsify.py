"""EleutherAI's sparsify 1: a folder named by the hook point, with `cfg.json` and `sae.safetensors`. Inputs are raw."""

from pathlib import Path

from safetensors.torch import save_file

from bisae.atomic import write_json
from bisae.cells import FoundCell
from bisae.convert.hook import path as module_path
from bisae.convert.source import Foreign, assembled, picked, settings, tensors, wanted, whole_k
from bisae.sae import SparseAutoencoder
from bisae.sae.raw import RawTopK

NAMES = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_pre": "b_dec"}
WRITES: tuple[type[SparseAutoencoder], ...] = (RawTopK,)


def read(source: Path, k: int | None) -> Foreign:
    """A TopK SAE; ConfigError for transcoders and group-max."""
    path = source / "cfg.json"
    cfg = {"activation": "topk", "transcode": False, "skip_connection": False, **settings(path)}
    wanted(cfg, "activation", {"topk": None}, path)
    wanted(cfg, "transcode", {False: None}, path)
    wanted(cfg, "skip_connection", {False: None}, path)
    weights = picked(tensors(source / "sae.safetensors"), NAMES, source)
    sae = assembled(RawTopK, weights, source, k=whole_k(cfg.get("k", k), path))
    hook = source.resolve().name
    return Foreign(sae, hook if "." in hook or hook == "embed_tokens" else None)


def write(sae: SparseAutoencoder, cell: FoundCell, folder: Path) -> None:
    """One of WRITES, exactly."""
    assert isinstance(sae, RawTopK)
    place = folder / module_path(cell)
    place.mkdir()
    W_enc, b_enc, W_dec, b_pre = (tensor.detach().float().cpu().contiguous() for tensor in sae.weights)
    found = {"encoder.weight": W_enc, "encoder.bias": b_enc, "W_dec": W_dec, "b_dec": b_pre}
    save_file(found, place / "sae.safetensors")
    cfg = {"activation": "topk", "num_latents": sae.latents, "k": sae.k, "normalize_decoder": True, "d_in": sae.d_model}
    write_json(place / "cfg.json", cfg)
