"""The functions that stay stable: `from bisae import ...` and `from bisae.features import ...`."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bisae
import bisae.features
from bisae import find_cells, load
from bisae.features import feature_language, monosemanticity
from bisae.runtime.atomic import write_json
from bisae.runtime.errors import Refused
from bisae.sae import TopK, save


def test_the_language_of_a_feature_is_that_of_a_count_by_hand() -> None:
    english = [[("The", 0.1), ("cat", 0.9)], [("a", 0.2), ("dog", 0.7)]]
    japanese = [[("猫", 0.8), ("が", 0.3)]]
    assert feature_language(english + japanese, threshold=0.9) == ("Mixed", {"en": 2, "ja": 1})  # 2 of 3
    assert feature_language(english + japanese, threshold=0.6) == ("English", {"en": 2, "ja": 1})
    assert feature_language(10 * japanese) == ("Japanese", {"en": 0, "ja": 10})


def test_the_monosemanticity_of_a_feature_is_that_of_a_count_by_hand() -> None:
    h_token = math.log(6) - (3 * math.log(3) + 2 * math.log(2)) / 6  # shares 3/6, 2/6, 1/6
    h_semantic = math.log(6) - 5 * math.log(5) / 6  # animal 5/6, plant 1/6
    found = monosemanticity([3, 2, 1], ["animal", "animal", "plant"])
    assert found == pytest.approx(1 - h_semantic / h_token, abs=1e-15) == pytest.approx(0.555, abs=5e-4)


def test_a_cell_is_found_and_its_sae_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "runs/lm/step0000512/layer02/topk-abc"
    folder.mkdir(parents=True)
    sae = TopK(d_model=4, latents=8, k=2)
    with torch.no_grad():
        sae.W_enc.normal_()
    save(sae, folder)
    card = {"model": "lm", "step": 512, "layer": 2, "sae": "topk", "hash": "abc"}
    write_json(folder / "cell.json", card | {"identity": {}, "provenance": {}, "metrics": {"val/fvu": 0.5}})
    (cell,) = find_cells("lm/*/layer02", tmp_path / "runs")
    assert (cell.folder, cell.step, cell.metrics["val/fvu"]) == (folder, 512, 0.5)
    assert torch.equal(load(cell.folder).W_enc, sae.W_enc)
    with pytest.raises(Refused, match="no finished cell"):
        find_cells("nowhere", tmp_path / "runs")


def test_importing_the_packages_imports_nothing_slow() -> None:
    code = "import sys, bisae, bisae.features; print(*{'torch', 'numpy', 'scipy', 'hydra'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_what_the_packages_offer_is_there_and_nothing_else() -> None:
    for package in (bisae, bisae.features):
        assert all(callable(getattr(package, name)) for name in package.__all__)
        with pytest.raises(AttributeError, match=f"{package.__name__}.* has no attribute 'nothing'"):
            package.nothing  # noqa: B018
