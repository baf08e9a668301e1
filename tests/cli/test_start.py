"""Warm starts and snapshots."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from bisae.cells.cell import Cell
from bisae.cells.find import find_cells
from bisae.cli.analyze import analyze
from bisae.cli.evaluate import evaluate
from bisae.cli.train import train
from bisae.lm.lm_pass import LMPass
from bisae.runtime.errors import ConfigError
from bisae.sae import TopK, save
from tests.conftest import ROOT, TINY, run

pytestmark = pytest.mark.slow

Config = Callable[..., DictConfig]
LADDER = "ladder=[0,64,512]"
EARLY = "lightning.pytorch.callbacks.EarlyStopping"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae.safetensors")


def same(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def snapshot(cell: Cell, tokens: int) -> Path:
    """The cell of another number of tokens of the same training."""
    for file in cell.folder.parent.glob("*/cell.json"):
        if json.loads(file.read_text())["identity"] == {**cell.identity, "snapshot": tokens}:
            return file.parent
    raise FileNotFoundError(tokens)


@pytest.mark.parametrize(
    "sae",
    ["topk", "relu_l1", "batch_topk", "jump_relu", "matryoshka", "topk_candidates"],
)
def test_zero_tokens_give_the_start_bit_for_bit_whatever_the_architecture(config: Config, sae: str) -> None:
    own = {"relu_l1": ["~sae.k"], "jump_relu": ["~sae.k"]}.get(sae, [])
    few = [f"sae={sae}", "data.epochs=1", "data.tokens=2000", *own]
    overrides = [key for key in few if key != "~sae.k"]

    def composed(*more: str) -> DictConfig:
        if not own:
            return config(*overrides, *more)
        shrunk = [key for key in TINY if not key.startswith("sae.k")]
        return config(*shrunk, *overrides, *more, tiny=False)

    (first,) = train(composed("checkpoint=64"))
    (cell,) = train(composed(f"sae.start={first.folder}", "snapshots=[0]"))
    assert same(snapshot(cell, 0), first.folder) and not same(cell.folder, first.folder)
    assert cell.identity["start"] == first.hash and "start" not in first.identity


def test_without_a_start_the_identity_is_what_it_was(config: Config) -> None:
    (cell,) = train(config("sae/recipe=study", "sae.lr=2e-3"))
    assert cell.hash == "55fa2fb3823c"  # of version 1.0
    assert not {"start", "snapshot", "snapshots", "ladder"} & set(cell.identity)
    assert "start" not in cell.identity["sae"]


def test_previous_makes_what_is_missing_in_the_ladders_order_and_nothing_twice(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (third,) = train(config("sae.start=previous", LADDER))
    cells = {cell["step"]: cell for cell in _written(third.runs)}
    assert sorted(cells) == [0, 64, 512]
    assert cells[64]["identity"]["start"] == cells[0]["hash"] and third.identity["start"] == cells[64]["hash"]
    (plain,) = train(config("checkpoint=0"))
    assert plain.hash == cells[0]["hash"]  # the first of a ladder is the cell from scratch
    monkeypatch.setattr(LMPass, "activations", lambda *_: pytest.fail("ran the LM again"))
    (second,) = train(config("checkpoint=64", "sae.start=previous", LADDER))
    assert second.hash == cells[64]["hash"]
    (named,) = train(config(f"sae.start={second.folder}"))
    assert named.hash == third.hash  # another way to write it
    reversed_ladder = "ladder=[512,64,0]"
    monkeypatch.undo()
    (back,) = train(config("checkpoint=64", "sae.start=previous", reversed_ladder))
    (last,) = train(config("checkpoint=512"))
    assert back.identity["start"] == last.hash != third.hash


def _written(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in runs.rglob("cell.json")]


def test_each_member_starts_from_the_cell_of_its_own_layer_and_settings_and_equals_the_same_cell_alone(
    config: Config, tmp_path: Path
) -> None:
    together = train(config("layer=[1,2]", "sae.k=[2,4]", "sae.start=[null,previous]", "ladder=[64,512]"))
    assert len(together) == 8
    first = {cell["hash"]: cell for cell in _written(tmp_path / "runs") if cell["step"] == 64}
    assert len(first) == 4  # from scratch and `previous` are one at the first step
    for cell in together:
        if "start" in cell.identity:
            start = first[cell.identity["start"]]
            assert (start["layer"], start["identity"]["sae"]) == (cell.layer, cell.identity["sae"])
    warm = next(cell for cell in together if "start" in cell.identity)
    chosen = [f"layer={warm.layer}", f"sae.k={warm.identity['sae']['k']}", "sae.start=previous", "ladder=[64,512]"]
    (alone,) = train(config(*chosen, f"runs={tmp_path}/alone"))
    assert alone.name == warm.name and same(alone.folder, warm.folder)


def test_a_start_may_be_a_saved_sae_or_cells_of_which_one_fits(config: Config, tmp_path: Path) -> None:
    sae = TopK(128, 64, 4, seed=5)
    (tmp_path / "saved").mkdir()
    save(sae, tmp_path / "saved")
    (cell,) = train(config(f"sae.start={tmp_path}/saved", "snapshots=[0]"))
    assert all(torch.equal(value, sae.state_dict()[name]) for name, value in weights(snapshot(cell, 0)).items())
    shutil.copytree(tmp_path / "saved", tmp_path / "moved")
    (moved,) = train(config(f"sae.start={tmp_path}/moved"))
    assert moved.hash == cell.hash  # a path is no identity
    train(config("checkpoint=64", "layer=[1,2]", "sae.k=[2,4]"))
    (chosen,) = train(config("sae.start=embedded/step0000064", "layer=1"))
    start = next(one for one in _written(tmp_path / "runs") if one["hash"] == chosen.identity["start"])
    assert (start["layer"], start["identity"]["sae"]["k"]) == (1, 4)


REFUSED: Sequence[tuple[str, str, str]] = (
    ("sae.start=previous", "sae.start", "ladder=[0,256,final]"),
    ("sae.start=previous ladder=[0,64]", "ladder", "checkpoint=512"),
    ("sae.start=previous ladder=[0,0,512]", "ladder", "once"),
    ("sae.start=previous ladder=[0,63,512]", "checkpoint", "has the steps"),
    ("sae.start=previous ladder=[0,256,512] trainer.devices=2", "sae.start", "hydra/launcher=basic"),
    ("sae.start=nowhere", "sae.start", "no such folder"),
    ("sae.start=previous ladder=[64,512] +trainer.fast_dev_run=true", "sae.start", "a trial leaves no cells"),
    (
        f"+callbacks.stop={{_target_:{EARLY},monitor:val/fvu}} snapshots=[250]",
        "snapshots",
        "may end the training before",
    ),
    ("sae.start=embedded/step0000064 layer=1", "sae.start", "no cell of layer 1, only of [2]"),
    ("sae.start=embedded/step0000064 sae.latents=32", "sae.start", "other latents"),
    ("sae.start=embedded/step0000064 sae=batch_topk", "sae.start", "is a topk SAE, but sae makes a batch_topk"),
    ("sae.start=embedded/step0000064 model=embedded_d64 layer=2", "sae.start", "LM"),
    ("sae.start=embedded/step* sae.k=3", "sae.start", "2 cells of layer 2"),
    ("sae.start=3", "sae.start", "text"),
    ("snapshots=[300]", "snapshots", "multiple of the batch, 250; the nearest is 250"),
    ("snapshots=[12000]", "snapshots", "ends after 12000 tokens"),
    ("snapshots=[250,250]", "snapshots", "once"),
    ("snapshots=[-1]", "snapshots", "at least 0"),
)


def test_what_cannot_be_a_start_or_a_snapshot_is_refused_by_key_before_the_lm_runs(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config("checkpoint=64"))
    train(config("checkpoint=0"))
    monkeypatch.setattr(LMPass, "activations", lambda *_: pytest.fail("ran the LM"))
    for overrides, key, said in REFUSED:
        with pytest.raises(ConfigError) as refused:
            train(config(*overrides.split()))
        assert refused.value.key == key and said in str(refused.value), refused.value


@pytest.mark.parametrize("store", ["cached", "rolling", "streaming"])
def test_snapshots_are_cells_and_change_no_bit_of_the_final_one(config: Config, tmp_path: Path, store: str) -> None:
    where = [f"activations={store}", "data.window_pools=2", "layer=[1,2]"]
    plain = train(config(*where, f"runs={tmp_path}/plain"))
    cells = train(config(*where, "snapshots=[1500,6000,7500]"))
    for one, other in zip(plain, cells, strict=True):
        assert one.name == other.name and same(one.folder, other.folder)
        assert one.read()["metrics"] == other.read()["metrics"]
    half = [snapshot(cell, 6000) for cell in cells]
    assert not same(half[0], snapshot(cells[0], 7500))
    about = json.loads((half[0] / "cell.json").read_text())
    provenance, of_end = about["provenance"], cells[0].read()["provenance"]
    assert provenance["sae_tokens"] == 6000 and provenance["snapshot_of"] == cells[0].name
    assert "wandb_run" not in provenance and provenance["snapshot_of_runs"] == [of_end["wandb_run"]]
    alike = of_end.keys() - {"wandb_run", "sae_tokens"}
    assert {name: provenance[name] for name in alike} == {name: of_end[name] for name in alike}
    assert find_cells(of_end["wandb_run"], tmp_path / "runs")[0].name == cells[0].name  # and no snapshot
    scored = evaluate(config(f"cell={half[0]}", name="evaluate")).iloc[0]
    assert scored["fvu"] == pytest.approx(about["metrics"]["val/fvu"], rel=1e-6)


def test_snapshots_asked_for_later_are_made_and_the_finished_cell_stays(config: Config) -> None:
    (cell,) = train(config())
    before = (cell.folder / "cell.json").stat().st_mtime_ns
    train(config("snapshots=[1500]"))
    assert (cell.folder / "cell.json").stat().st_mtime_ns == before and snapshot(cell, 1500)
    train(config("snapshots=[1500]", "force=true"))
    assert len(list(cell.folder.parent.glob("*.old1"))) == 2


def test_a_member_that_fails_leaves_no_snapshot_after_that(config: Config) -> None:
    from bisae.runtime.errors import TrainingFailed

    with pytest.raises(TrainingFailed):
        train(config("sae.lr=[0.002,1e38]", "snapshots=[0,6000]"))
    runs = Path(config().runs)
    found = [(cell["identity"]["sae"]["lr"], cell["identity"].get("snapshot")) for cell in _written(runs)]
    assert sorted(found, key=str) == [(0.002, 0), (0.002, 6000), (0.002, None), (1e38, 0)]


def test_the_analysis_takes_snapshots_and_follows_features_along_warm_starts(config: Config, tmp_path: Path) -> None:
    (warm,) = train(config("sae.start=previous", "ladder=[64,512]", "snapshots=[6000]"))
    table = analyze(config(name="analyze"))
    assert sorted(table["step"]) == [64, 64, 512, 512]
    settings = table.set_index("hash")["setting"]
    assert len(set(settings)) == 4 and "start=earlier step" in settings[warm.hash]
    lineage = pd.read_parquet(tmp_path / "report" / "lineage.parquet")
    assert set(lineage["hash"]) == {warm.identity["start"]} and set(lineage["next_step"]) == {512}


@pytest.mark.parametrize(("place", "call"), [("step", 20), ("at-cell", 1)])
def test_a_killed_job_with_a_start_and_snapshots_ends_as_undisturbed(tmp_path: Path, place: str, call: int) -> None:
    overrides = [*TINY, "sae.start=previous", "ladder=[64,512]", "snapshots=[0,4000,4250]", "data.epochs=1"]
    for folder, point in (("undisturbed", "never"), ("killed", place)):
        (tmp_path / folder).mkdir()
        run(["-m", "tests.killed", "train", point, str(call), *overrides], tmp_path / folder)
        again = run([str(ROOT / "train.py"), *overrides], tmp_path / folder)
        assert again.returncode == 0, again.stderr
    files = sorted((tmp_path / "undisturbed").rglob("sae.safetensors"))
    assert len(files) == 8
    for file in files:
        other = tmp_path / "killed" / file.relative_to(tmp_path / "undisturbed")
        assert file.read_bytes() == other.read_bytes()


def test_a_sweep_starts_each_from_the_one_before_though_its_jobs_run_side_by_side(tmp_path: Path) -> None:
    overrides = [key for key in TINY if not key.startswith("checkpoint=")]
    sweep = ["-m", "hydra/launcher=processes", "checkpoint=64,0,512", "sae.start=previous"]
    done = run([str(ROOT / "train.py"), *sweep, *overrides], tmp_path)
    assert done.returncode == 0, done.stderr
    cells = {cell["step"]: cell for cell in _written(tmp_path / "runs")}
    assert len(list((tmp_path / "runs").rglob("cell.json"))) == 3
    assert cells[0]["identity"]["start"] == cells[64]["hash"]  # in the order in which they are named
    assert cells[512]["identity"]["start"] == cells[0]["hash"] and "start" not in cells[64]["identity"]


def test_two_ranks_start_and_snapshot_as_one_process_does(tmp_path: Path) -> None:
    smooth = [*TINY, "sae.k=64", "ladder=[64,512]", "sae.start=previous", "snapshots=[0,3000]"]
    found = {}
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        shutil.copytree(tmp_path / "1" / "runs", folder / "runs") if devices == 2 else None
        if devices == 2:  # the first of the ladder is there, the second is not
            shutil.rmtree(folder / "runs" / "embedded" / "step0000512")
        done = run([str(ROOT / "train.py"), *smooth, f"trainer.devices={devices}"], folder)
        assert done.returncode == 0, done.stderr
        files = sorted(folder.rglob("step0000512/**/sae.safetensors"))
        found[devices] = {f"{file.parent.name} {name}": v for file in files for name, v in load_file(file).items()}
    assert found[1].keys() == found[2].keys() and len(found[1]) == 12
    for name, value in found[1].items():
        torch.testing.assert_close(found[2][name], value, rtol=1e-4, atol=2e-6)
