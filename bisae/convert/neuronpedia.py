"""Write an analysed cell's features for Neuronpedia, in the layout of SAEDashboard's `neuronpedia_export.py`.

`<model>/<layer>-<set>/` has `release.jsonl`, `model.jsonl`, `sourceset.jsonl`, `source.jsonl`, and rows of features and
activations in `features/batch-<n>.jsonl.gz` and `activations/batch-<n>.jsonl.gz`. Fields that an analysis does not hold
(logits, histograms, correlations) are empty. Layers count blocks from 0.
"""

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from bisae.cells.cell import FEATURES
from bisae.cells.find import FoundCell
from bisae.convert.hook import transformer_lens
from bisae.runtime.atomic import atomic_folder
from bisae.runtime.errors import Refused

BATCH = 128  # features in a file, as in SAEDashboard
EMPTY = (
    *("neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_pearson", "correlated_neurons_l1"),
    *("correlated_features_indices", "correlated_features_pearson", "correlated_features_l1"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "decoder_weights_dist"),
    *("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values"),
)
ABSENT = ("dataSource", "dataIndex", "dfaTargetIndex", "dfaMaxValue", "logitContributions", "zIndices", "zValues")


def write(cell: FoundCell, output: Path, creator: str, name: str, created: str) -> Path:
    """Write the published analysis of a cell below `output`.

    Args:
        cell: an analysed cell.
        output: the files go to `<output>/<model>/<layer>-<set>/`.
        creator: Neuronpedia's id of the user who uploads.
        name: of that user, as shown.
        created: date and time, ISO 8601.

    Returns:
        The folder written.

    Raises:
        Refused: as `cell` if the cell is not analysed, as `output` if the folder exists.
    """
    analysis = published(cell)
    about = json.loads((analysis / "analysis.json").read_text(encoding="utf-8"))
    layer = max(0, cell.layer - 1)
    group = f"bisae-{cell.sae}-step{cell.step}-{cell.hash}"
    place = output / cell.model / f"{layer}-{group}"
    if place.exists():
        raise Refused("output", place, "is there already")
    features = pd.read_parquet(analysis / FEATURES)
    contexts = pd.read_parquet(analysis / "contexts.parquet")
    sequences = pd.read_parquet(analysis / "sequences.parquet").set_index("sequence")
    near = pq.read_table(analysis / "neighbours.parquet").to_pylist()
    who = {"creatorId": creator, "createdAt": created}
    row = {"modelId": cell.model, "layer": place.name, **who}
    with atomic_folder(place) as temporary:
        for file, line in _metadata(cell, place.name, group, about, who, name).items():
            _lines(temporary / f"{file}.jsonl", [line])
        by_feature = dict(list(contexts.groupby("feature")))
        for batch, start in enumerate(range(0, len(features), BATCH)):
            chosen = features.iloc[start : start + BATCH].to_dict("records")
            pairs = [(feature, by_feature.get(feature["feature"])) for feature in chosen]
            described = [_feature(feature, near[feature["feature"]], own, cell, row) for feature, own in pairs]
            _lines(temporary / f"features/batch-{batch}.jsonl.gz", described)
            firing = (
                line for feature, own in pairs if own is not None for line in _activations(feature, own, sequences, row)
            )
            _lines(temporary / f"activations/batch-{batch}.jsonl.gz", firing)
    return place


def published(cell: FoundCell) -> Path:
    """The folder of the analysis that wrote the cell's `features.parquet`."""
    try:
        rules = json.loads(pq.read_schema(cell.folder / FEATURES).metadata[b"bisae"])
    except (OSError, KeyError, ValueError) as error:
        raise Refused("cell", cell.folder, "is not analysed; run `python analyze.py` on it first") from error
    folder = cell.folder / "analysis" / rules["name"]
    if not (folder / "analysis.json").is_file():
        raise Refused("cell", cell.folder, "lacks the analysis of its features.parquet; run `python analyze.py`")
    return folder


def _metadata(
    cell: FoundCell, source: str, group: str, about: Mapping[str, Any], who: Mapping[str, str], name: str
) -> dict[str, dict[str, Any]]:
    """One row for each of the release, the LM, the set of sources (layers) and this source."""
    release = f"bisae-{cell.model}"
    seen = {**who, "visibility": "PUBLIC"}
    text = about["settings"]["text"]
    return {
        "release": {
            **seen,
            "name": release,
            "description": f"SAEs of {cell.model} by bisae",
            "descriptionShort": f"SAEs of {cell.model}",
            "creatorName": name,
            "creatorNameShort": name,
            "urls": [],
        },
        "model": {
            **seen,
            "id": cell.model,
            "instruct": False,
            "displayName": cell.model,
            "displayNameShort": cell.model,
            "dimension": about["lm"]["d_model"],
            "layers": about["lm"]["layers"],
            "neuronsPerLayer": 0,
            "inferenceEnabled": False,
            "owner": "",
            "updatedAt": who["createdAt"],
        },
        "sourceset": {
            **seen,
            "modelId": cell.model,
            "name": group,
            "description": f"residual stream, {cell.identity['sae']['latents']} latents, LM step {cell.step}",
            "type": "",
            "urls": [],
            "creatorName": name,
            "releaseName": release,
            "hasDashboards": True,
        },
        "source": {
            **seen,
            "id": source,
            "modelId": cell.model,
            "setName": group,
            "hasDashboards": True,
            "inferenceEnabled": False,
            "dataset": text["corpus"],
            "num_tokens_in_prompt": text["context"],
            "notes": f"{about['tokens']} tokens",
        },
    }


def _feature(
    feature: Mapping[str, Any],
    near: Mapping[str, Any],
    own: pd.DataFrame | None,
    cell: FoundCell,
    row: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        **row,
        "index": str(feature["feature"]),
        "maxActApprox": 0.0 if own is None else _rounded(own["activation"].max()),
        "frac_nonzero": feature["rate"],
        "hookName": transformer_lens(cell),
        "topkCosSimIndices": near["feature"],
        "topkCosSimValues": [_rounded(value) for value in near["cosine"]],
        **{key: [] for key in EMPTY},
        "hasVector": False,
        "vector": [],
        "vectorLabel": None,
        "vectorDefaultSteerStrength": None,
        "sourceSetName": row["layer"].partition("-")[2],
    }


def _activations(
    feature: Mapping[str, Any], own: pd.DataFrame, sequences: pd.DataFrame, row: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
    """A row for each context. Contexts hold values in tenths of the feature's largest, rounded up, and exact peaks."""
    largest = own["activation"].max()
    for context in own.itertuples():
        top = _rounded(context.activation)
        values = np.minimum((context.values * (float(largest) / 10)).round(4), top).tolist()
        values[context.peak] = top
        yield {
            **row,
            "id": f"{row['layer']}-{feature['feature']}-{context.rank}",
            "index": str(feature["feature"]),
            "tokens": list(sequences.at[context.sequence, "pieces"]),
            "values": values,
            "maxValue": top,
            "maxValueTokenIndex": int(context.peak),
            "minValue": min(values),
            "qualifyingTokenIndex": int(context.peak),
            **{"binMin": None, "binMax": None, "binContains": None, "dfaValues": [], "lossValues": []},
            **dict.fromkeys(ABSENT),
        }


def _rounded(value: SupportsFloat) -> float:
    return round(float(value), 4)


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
