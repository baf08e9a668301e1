"""What was written before classes moved: configs, a cell, a cache and a save (tests/fixtures/before_moves)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from bisae.cells.find import FoundCell, find_cells
from bisae.cells.recipe import Recipe
from bisae.cli.train import train
from bisae.config.analyze import AnalyzeSettings
from bisae.config.instantiate import instantiate
from bisae.config.moved import FIRST, MOVED, as_first_named, with_current_paths
from bisae.config.settings import read_settings
from bisae.lm.lm_pass import LMPass
from bisae.sae import load
from bisae.training.module import SAETraining
from tests.conftest import ROOT

Config = Callable[..., DictConfig]
BEFORE = ROOT / "tests" / "fixtures" / "before_moves"
OVERRIDES = [
    *("sae/recipe=study", "sae.lr=2e-3", "size.dead_after=100_000"),
    *("model=embedded_d64", "checkpoint=512", "layer=1", "data.tokens=600", "data.validation_tokens=200"),
    *("data.batch=50", "data.pool_batches=4", "data.epochs=2", "sae.latents=16", "sae.k=2", "optimizer.warmup=5"),
    *("save_every=7", "log_every=5", "activations.pass.lm_batch=4", "activations.pass.shard_batches=2"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "logger=none"),
]
CELL = "embedded_d64/step0000512/layer01/topk-fa7dfeb9427e"
SAVED_STEP = 14  # of 24


@pytest.fixture
def before(tmp_path: Path, config: Config) -> Callable[..., DictConfig]:
    """`before(override, ...)`: the command of that time, in copies of its folders."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    return lambda *more: config(*OVERRIDES, *more, tiny=False)


@pytest.fixture
def without_lm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LMPass, "activations", lambda *_: pytest.fail("ran the LM"))


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_the_old_and_the_new_path_of_a_class_name_the_same_one(old: str, new: str) -> None:
    if new.rpartition(".")[2] != "TritonTopK":
        assert isinstance(resolve_name(new), type)
    assert with_current_paths({"_target_": old, "parts": [{"_target_": old}]}) == {
        "_target_": new,
        "parts": [{"_target_": new}],
    }
    assert as_first_named({"sae": {"_target_": new}}) == as_first_named({"sae": {"_target_": old}})
    assert FIRST[new] == old and old not in FIRST


def test_a_config_with_old_paths_is_checked_and_built_as_one_with_new_ones(config: Config) -> None:
    composed = config(name="analyze", tiny=False)
    node = {**OmegaConf.to_container(composed.patterns), "_target_": "bisae.patterns.contexts.Paper"}  # type: ignore[dict-item]
    assert instantiate(node, "patterns") == instantiate(composed.patterns, "patterns")
    composed.patterns = node
    read_settings(AnalyzeSettings, composed)


def test_a_cell_of_before_is_found_again_and_not_trained_again(before: Config, without_lm: None) -> None:
    (cell,) = train(before("optimizer=blocked"))
    assert cell.name == CELL and not list(cell.folder.parent.glob("*.old*"))
    (same,) = train(before("optimizer=blocked", "optimizer.partial._target_=bisae.sae.blocked.BlockedAdam"))
    assert same.name == CELL


def test_a_cell_of_before_is_read_with_its_lm_and_its_text(before: Config, tmp_path: Path) -> None:
    (cell,) = find_cells("embedded_d64", tmp_path / "runs")
    assert isinstance(cell, FoundCell) and cell.name == CELL
    assert load(cell.folder).latents == 16
    recipe = Recipe.of(cell, None, None, tmp_path / "cache")
    assert recipe.checkpoint.step == 512 and recipe.corpus.languages == ("en", "ja")


def test_a_cache_of_before_is_read_without_the_lm(before: Config, without_lm: None, tmp_path: Path) -> None:
    manifests = {path: path.read_bytes() for path in tmp_path.glob("cache/activations/*/manifest.json")}
    (cell,) = train(before("sae.seed=1"))
    assert cell.finished
    assert {path: path.read_bytes() for path in tmp_path.glob("cache/activations/*/manifest.json")} == manifests
    assert len(manifests) == 2


def test_a_save_of_before_is_gone_on_from(before: Config, without_lm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, original = [], SAETraining.training_step

    def counted(self: SAETraining, *arguments: Any) -> Any:
        steps.append(self.trainer.global_step)
        return original(self, *arguments)

    monkeypatch.setattr(SAETraining, "training_step", counted)
    (cell,) = train(before("sae=topk_candidates", "sae.candidates=4"))
    assert cell.finished
    assert steps == list(range(SAVED_STEP, 24))
