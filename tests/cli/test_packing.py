"""Sweeps over layers and SAEs in one job: the cells, bits and table of a job each."""

import json
from pathlib import Path

import pytest

from bisae.cli.packing import packed
from tests.conftest import ROOT, TINY, run


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["layer=1,2", "sae.k=4,8"], ["layer=[1,2]", "sae.k=[4,8]"]),
        (["checkpoint=0,512", "layer=range(1,4)"], ["checkpoint=0,512", "layer=[1,2,3]"]),
        (["sae.lr=1e-3,high"], ["sae.lr=[0.001,high]"]),  # refused later, by its key
        (["sae.start=null,previous"], ["sae.start=[null,previous]"]),
        (["data.seed=0,1", "seed=0,1"], ["data.seed=0,1", "seed=0,1"]),  # other streams
        (["sae=topk,relu_l1", "sae.name=a,b"], ["sae=topk,relu_l1", "sae.name=a,b"]),
        (["layer=1,all"], ["layer=1,all"]),
        (["layer=all", "sae.k=4,8"], ["layer=all", "sae.k=4,8"]),
        (["layer=[1,2],[3,4]"], ["layer=[1,2],[3,4]"]),
        (["layer=1,2", "layer=3,4"], ["layer=1,2", "layer=3,4"]),
        (["+sae.mine='a,b','c'"], ["+sae.mine='a,b','c'"]),
        (["layer=1,2,3", "sae.k=4,8", "sae.seed=0,1,2"], ["layer=[1,2,3]", "sae.k=[4,8]", "sae.seed=0,1,2"]),
        (["sae.seed=[0,1,2,3]", "layer=1,2,3"], ["sae.seed=[0,1,2,3]", "layer=1,2,3"]),
        (["~logger", "sae.lr=0.1"], ["~logger", "sae.lr=0.1"]),
    ],
)
def test_sweeps_over_layers_and_settings_of_the_sae_become_lists_of_at_most_so_many_saes(
    typed: list[str], expected: list[str]
) -> None:
    assert packed(typed, most=10) == expected
    assert packed(typed, most=1) == typed


def cells(folder: Path) -> dict[str, tuple[bytes, object]]:
    found = {}
    for file in sorted((folder / "runs").rglob("cell.json")):
        metrics = json.loads(file.read_text())["metrics"]
        found[str(file.parent.relative_to(folder))] = (file.with_name("sae.safetensors").read_bytes(), metrics)
    return found


@pytest.mark.slow
def test_the_cells_of_a_packed_sweep_are_those_of_a_job_each(tmp_path: Path) -> None:
    typed = ["-m", *TINY, "checkpoint=512", "layer=1,2", "sae.lr=0.001,1e38"]
    ends = {}
    for name, pack in (("packed", "64"), ("apart", "false")):
        (tmp_path / name).mkdir()
        ends[name] = run([str(ROOT / "train.py"), *typed, f"sweep.pack={pack}"], tmp_path / name)
        assert ends[name].returncode == 1 and "loss is not finite" in ends[name].stderr, ends[name].stderr
    assert cells(tmp_path / "packed") == cells(tmp_path / "apart") and len(cells(tmp_path / "packed")) == 2
    assert "1 of 1 jobs failed" in ends["packed"].stderr and "2 of 4 jobs failed" in ends["apart"].stderr
    again = run([str(ROOT / "train.py"), *typed[:-1], "sae.lr=0.001"], tmp_path / "apart")
    assert again.returncode == 0 and "SAEs trained:" not in again.stdout
