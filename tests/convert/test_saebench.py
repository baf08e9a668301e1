"""The JSON of SAEBench's core evaluation, from a cell of the shipped LM."""

import json
from pathlib import Path

import pytest

from bisae.cli.convert import convert
from bisae.convert.fit_to_lm import Sample
from bisae.runtime.errors import ConfigError
from bisae.sae import TopK
from tests.convert.conftest import Settings
from tests.convert.test_convert import LAYER, fitting, written

# Names and groups of SAEBench 0.6, evals/core/eval_output.py; its classes take the file as it is.
METRICS = {
    "model_behavior_preservation": "kl_div_score kl_div_with_ablation kl_div_with_sae",
    "model_performance_preservation": "ce_loss_score ce_loss_with_ablation ce_loss_with_sae ce_loss_without_sae",
    "reconstruction_quality": "explained_variance explained_variance_legacy mse cossim",
    "shrinkage": "l2_norm_in l2_norm_out l2_ratio relative_reconstruction_bias",
    "sparsity": "l0 l1",
    "token_stats": "total_tokens_eval_reconstruction total_tokens_eval_sparsity_variance",
    "misc_metrics": "freq_over_1_percent freq_over_10_percent normalized_freq_over_1_percent "
    "normalized_freq_over_10_percent average_max_encoder_cosine_sim average_max_decoder_cosine_sim frac_alive",
}
DETAIL = """index feature_density consistent_activation_heuristic encoder_bias encoder_norm encoder_decoder_cosine_sim
max_decoder_cosine_sim max_encoder_cosine_sim"""
TOP = """eval_type_id eval_config eval_id datetime_epoch_millis eval_result_metrics eval_result_details
sae_bench_commit_hash sae_lens_id sae_lens_release_id sae_lens_version sae_cfg_dict eval_result_unstructured"""


def test_a_cell_is_scored_under_saebenchs_names_and_per_language(
    sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    theirs = written(fitting(sample, TopK), tmp_path / "theirs")
    (folder,) = convert(settings("from=saelens", f"source={theirs}", "model=embedded", "checkpoint=512", "most_fvu=1"))
    wanted = settings("to=saebench", f"cell={folder}", f"output={tmp_path}/out", "recovered=3")
    (place,) = convert(wanted)
    found = json.loads(place.read_text())
    assert set(found) == set(TOP.split()) and found["eval_type_id"] == "core"
    metrics = found["eval_result_metrics"]
    assert {group: set(scores) for group, scores in metrics.items()} == {
        group: set(names.split()) for group, names in METRICS.items()
    }
    assert len(found["eval_result_details"]) == 16
    assert all(set(row) == set(DETAIL.split()) for row in found["eval_result_details"])
    more = found["eval_result_unstructured"]
    assert more["r2"] == pytest.approx(1 - sample.quality(fitting(sample, TopK), LAYER)["fvu_raw"], rel=1e-3)
    assert set(more["languages"]) == {"en", "ja"} and more["languages"]["ja"]["ce_loss_score"] < 1
    assert 0 < metrics["model_performance_preservation"]["ce_loss_score"] < 1
    assert metrics["token_stats"]["total_tokens_eval_sparsity_variance"] == len(sample.language)
    assert "NaN" not in place.read_text()
    with pytest.raises(ConfigError, match="^output=.*is there already"):
        convert(wanted)
