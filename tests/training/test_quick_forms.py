"""The quick forms of the step, in the real command: updates by block, candidates, and their former names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cli.train import train
from tests.conftest import ROOT, TINY, run

QUICK = [*TINY, "optimizer=blocked", "sae=topk_candidates", "sae.candidates=32", "sae.aux_k=8", "sae.dead_after=500"]


def test_blocks_train_the_bits_of_whole_gradients_in_the_same_cell(
    config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    found = {}
    own = "+callbacks.mine._target_=lightning.pytorch.callbacks.ModelSummary"
    for number, form in enumerate([[], ["optimizer.by_block=false"], ["optimizer=blocked"], [own]]):
        found[number] = train(config("data.epochs=1", *form, f"runs={tmp_path}/{number}"))[0]
    default, whole, former, watched = found.values()
    assert default.name == whole.name != former.name
    assert [cell.read()["provenance"]["computed"]["update"] for cell in found.values()] == [
        *("by blocks of latents", "whole gradients", "by blocks of latents", "whole gradients")
    ]
    one, *others = (load_file(cell.folder / "sae.safetensors") for cell in found.values())
    assert all(torch.equal(one[name], other[name]) for other in others for name in one)


def test_candidates_are_in_a_cells_name_where_they_are_chosen_and_else_in_its_provenance(
    config: Callable[..., DictConfig],
) -> None:
    auto, chosen, none = (
        train(config("data.epochs=1", *keys))[0] for keys in ([], ["sae.candidates=32"], ["sae.candidates=none"])
    )
    assert len({auto.name, chosen.name, none.name}) == 3 and "candidates" not in auto.identity["sae"]
    computed = [cell.read()["provenance"]["computed"]["codes"] for cell in (auto, chosen, none)]
    assert computed[0] == computed[2] != computed[1]
    assert computed[1] == "candidates of a product in bf16, decided in float32 and float64"
    weights = [load_file(cell.folder / "sae.safetensors") for cell in (auto, chosen, none)]
    assert all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())
    torch.testing.assert_close(weights[1], weights[0], atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_killed_job_of_both_forms_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    for folder, point in (("undisturbed", "never"), ("killed", "step")):
        (tmp_path / folder).mkdir()
        killed = run(["-m", "tests.killed", "train", point, "30", *QUICK], tmp_path / folder)
        assert killed.returncode == (-9 if point == "step" else 0), killed.stderr
        done = run([str(ROOT / "train.py"), *QUICK], tmp_path / folder)
        assert done.returncode == 0, done.stderr
    one, other = (next((tmp_path / f).rglob("sae.safetensors")).read_bytes() for f in ("undisturbed", "killed"))
    assert one == other


def test_blocks_are_refused_on_two_devices(tmp_path: Path) -> None:
    done = run([str(ROOT / "train.py"), *TINY, "optimizer=blocked", "trainer.devices=2"], tmp_path)
    assert done.returncode == 1 and "optimizer=adam" in done.stderr, done.stderr
