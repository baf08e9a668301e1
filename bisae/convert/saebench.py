"""Write a cell's scores as SAEBench's core evaluation does, on the cell's own corpus, overall and by language."""

import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bisae.cells.find import FoundCell
from bisae.cells.recipe import Recipe
from bisae.convert.exported import loaded
from bisae.convert.fit_to_lm import Sample
from bisae.convert.saebench_scores import GROUPS, TokenScores, density_scores, weight_scores
from bisae.runtime.atomic import write_json
from bisae.sae import SparseAutoencoder

LOSS = {
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
    "model_performance_preservation": (
        *("ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae"),
    ),
}


def write(
    cell: FoundCell,
    recipe: Recipe,
    split: str,
    tokens: int,
    documents: int,
    device: str,
    output: Path,
    classes: Sequence[type[SparseAutoencoder]] = (),
) -> Path:
    """Measure a cell and write `<output>/<model>_step..._layer..._<sae>-<hash>_eval_results.json`.

    Args:
        cell: to measure.
        recipe: its LM and corpus.
        split: of the corpus.
        tokens: number of tokens for reconstruction and density.
        documents: number of documents of each language for the LM's loss when it goes on from the reconstruction.
        device: for the LM.
        output: folder.
        classes: SAE classes of the user's own, for `load`.

    Returns:
        The file written.

    Raises:
        Refused: the file exists, or the SAE cannot be read.
    """
    from bisae.analysis.loss_recovered import LossRecovered  # slow to import

    name = cell.name.replace("/", "_")
    place = output / f"{name}_eval_results.json"
    sae = loaded(cell, place, classes)
    source = recipe.lm_pass(split, device)
    on = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
    loss = LossRecovered(recipe, split, documents, source.tokenizer, on)
    recovered = loss.of(sae, cell.layer, resamples=2, seed=0)  # its intervals are not used
    sample = Sample.of(source, [cell.layer], tokens)
    stream = sample.streams[cell.layer]
    measured = TokenScores.of(sae, stream, sample.sequence)
    weights, density = weight_scores(sae), measured.densities()
    scores = {**measured.scores(), **recovered}
    metrics = {group: {key: scores[key] for key in keys} for group, keys in {**LOSS, **GROUPS}.items()}
    metrics["token_stats"] = {
        "total_tokens_eval_reconstruction": loss.tokens,
        "total_tokens_eval_sparsity_variance": len(stream),
    }
    metrics["misc_metrics"] = {
        **density_scores(density),
        **{
            f"average_{key}": float(weights[key].mean()) for key in ("max_encoder_cosine_sim", "max_decoder_cosine_sim")
        },
    }
    with np.errstate(invalid="ignore"):
        details = {
            "feature_density": density,
            "consistent_activation_heuristic": measured.tokens / measured.sequences,
            **weights,
        }
    by_language = {
        code: {
            **TokenScores.of(sae, stream[chosen], sample.sequence[chosen]).scores(),
            **{key: recovered[f"{key}_{code}"] for keys in LOSS.values() for key in keys},
        }
        for code, chosen in ((code, sample.language == number) for number, code in enumerate(sample.languages))
    }
    rows = zip(*(values.tolist() for values in details.values()), strict=True)
    result = {
        "eval_type_id": "core",
        "eval_config": _config(cell, recipe, split),
        "eval_id": str(uuid.uuid4()),
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": metrics,
        "eval_result_details": [
            {"index": index, **{key: round(value, 6) for key, value in zip(details, row, strict=True)}}
            for index, row in enumerate(rows)
        ],
        "sae_bench_commit_hash": "",  # SAEBench has not run
        "sae_lens_id": name,
        "sae_lens_release_id": "bisae",
        "sae_lens_version": None,
        "sae_cfg_dict": {"architecture": sae.architecture, "d_in": sae.d_model, "d_sae": sae.latents},
        "eval_result_unstructured": {"r2": scores["r2"], "languages": by_language, "cell": dict(cell.metrics)},
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(place, _defined(result))
    return place


def _config(cell: FoundCell, recipe: Recipe, split: str) -> dict[str, Any]:
    return {
        "model_name": cell.model,
        "llm_dtype": recipe.reading["lm_dtype"],
        "batch_size_prompts": recipe.reading["lm_batch"],
        "dataset": f"{split} of {recipe.corpus.checksum(split)}",
        "context_size": recipe.reading["context"],
        "compute_kl": True,
        "compute_ce_loss": True,
        "compute_l2_norms": True,
        "compute_sparsity_metrics": True,
        "compute_variance_metrics": True,
        "compute_featurewise_density_statistics": True,
        "compute_featurewise_weight_based_metrics": True,
        "exclude_special_tokens_from_reconstruction": True,
    }


def _defined(value: Any) -> Any:
    """Replace NaN and infinity by -1, as SAEBench does."""
    if isinstance(value, Mapping):
        return {key: _defined(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_defined(inner) for inner in value]
    return -1.0 if isinstance(value, float) and not math.isfinite(value) else value
