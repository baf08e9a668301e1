"""The rows Neuronpedia imports, by the fields of SAEDashboard's exporter, from a small analysed cell."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bisae.analysis.folder import Analysis
from bisae.analysis.sentence_pairs import NO_RETRIEVAL
from bisae.cells.find import FoundCell
from bisae.convert import neuronpedia
from bisae.runtime.errors import Refused
from tests.analysis.small_cell import LANGUAGES, described, rules
from tests.convert.test_repository import cell_in

# Of `Feature` and `Activation` in SAEDashboard's neuronpedia_export.py.
FEATURE = """modelId layer index creatorId createdAt maxActApprox hasVector vector vectorLabel
vectorDefaultSteerStrength hookName topkCosSimIndices topkCosSimValues neuron_alignment_indices
neuron_alignment_values neuron_alignment_l1 correlated_neurons_indices correlated_neurons_pearson
correlated_neurons_l1 correlated_features_indices correlated_features_pearson correlated_features_l1
neg_str neg_values pos_str pos_values frac_nonzero freq_hist_data_bar_heights freq_hist_data_bar_values
logits_hist_data_bar_heights logits_hist_data_bar_values decoder_weights_dist sourceSetName"""
ACTIVATION = """id tokens index layer modelId maxValue maxValueTokenIndex minValue values creatorId dataSource dataIndex
dfaValues dfaTargetIndex dfaMaxValue createdAt lossValues logitContributions binMin binMax binContains
qualifyingTokenIndex zIndices zValues"""
NOW = "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> tuple[FoundCell, Analysis, np.ndarray]:
    """A cell with a published analysis, and its dense codes."""
    folder = tmp_path_factory.mktemp("analysed")
    cell = cell_in(folder / "runs", 2)
    found, reading, sae, dense = described(folder, rules())
    analysis = Analysis(cell, {"text": {"corpus": "0123", "context": 8}})
    lm = {"parameters": 1, "d_model": 6, "layers": 4, "tokens_seen": None}
    near = np.tile([[1, 2]], (12, 1)), np.full((12, 2), 0.5, np.float32)
    texts = [f"t{number}" for number in range(7)]
    readable = texts, lambda ids: [texts[one] for one in ids]
    analysis.write(found, {}, reading.tokens, LANGUAGES, *readable, lm, near, NO_RETRIEVAL)
    analysis.publish()
    return cell, analysis, dense


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{kind}/batch-*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.open(file, "rt", encoding="utf-8")]


def test_every_feature_and_context_is_a_row_with_all_fields(
    analysed: tuple[FoundCell, Analysis, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, analysis, dense = analysed
    monkeypatch.setattr(neuronpedia, "BATCH", 5)
    place = neuronpedia.write(cell, tmp_path, "someone", "Some One", NOW)
    group = f"bisae-topk-step512-{cell.hash}"
    assert place == tmp_path / "embedded" / f"1-{group}"
    features, activations = rows(place, "features"), rows(place, "activations")
    assert len(list((place / "features").iterdir())) == 3
    assert [row["index"] for row in features] == [str(number) for number in range(12)]
    assert all(set(row) == set(FEATURE.split()) for row in features)
    assert all(set(row) == set(ACTIVATION.split()) for row in activations)
    assert {row["hookName"] for row in features} == {"blocks.1.hook_resid_post"}
    assert {row["layer"] for row in [*features, *activations]} == {place.name}
    rates = [row["frac_nonzero"] for row in features]
    np.testing.assert_allclose(rates, (dense > 0).mean(0))
    contexts = pd.read_parquet(analysis.folder / "contexts.parquet")
    assert len(activations) == len(contexts) and len({row["id"] for row in activations}) == len(contexts)
    largest = contexts.groupby("feature")["activation"].max()
    assert features[4]["maxActApprox"] == 0 and 4 not in largest.index  # dead
    assert features[0]["maxActApprox"] == pytest.approx(largest[0], abs=1e-4)


def test_an_activation_is_right_at_its_peak_and_to_a_tenth_elsewhere(
    analysed: tuple[FoundCell, Analysis, np.ndarray], tmp_path: Path
) -> None:
    cell, analysis, _ = analysed
    place = neuronpedia.write(cell, tmp_path, "someone", "Some One", NOW)
    contexts = pd.read_parquet(analysis.folder / "contexts.parquet")
    sequences = pd.read_parquet(analysis.folder / "sequences.parquet").set_index("sequence")
    largest = contexts.groupby("feature")["activation"].max()
    for row, (_, context) in zip(rows(place, "activations"), contexts.iterrows(), strict=True):
        assert row["index"] == str(int(context["feature"]))
        assert row["tokens"] == list(sequences.at[context["sequence"], "pieces"])
        assert row["maxValueTokenIndex"] == context["peak"] == np.argmax(row["values"])
        assert row["maxValue"] == max(row["values"]) == pytest.approx(context["activation"], abs=1e-4)
        tenth = largest[context["feature"]] / 10
        np.testing.assert_allclose(row["values"], context["values"] * tenth, atol=tenth + 1e-4)


def test_release_model_set_and_source_name_each_other(
    analysed: tuple[FoundCell, Analysis, np.ndarray], tmp_path: Path
) -> None:
    place = neuronpedia.write(analysed[0], tmp_path, "someone", "Some One", NOW)
    release, model, group, source = (
        json.loads((place / f"{name}.jsonl").read_text()) for name in ("release", "model", "sourceset", "source")
    )
    assert source["id"] == place.name and source["setName"] == group["name"] and source["num_tokens_in_prompt"] == 8
    assert group["releaseName"] == release["name"] and model["id"] == group["modelId"] == source["modelId"]
    assert {row["creatorId"] for row in (release, model, group, source)} == {"someone"}
    with pytest.raises(Refused, match="^output=.*is there already"):
        neuronpedia.write(analysed[0], tmp_path, "someone", "Some One", NOW)


def test_a_cell_that_is_not_analysed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^cell=.*is not analysed; run `python analyze.py`"):
        neuronpedia.write(cell_in(tmp_path / "runs", 1), tmp_path / "out", "someone", "Some One", NOW)
    assert not (tmp_path / "out").exists()
