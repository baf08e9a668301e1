"""Keys that set others, the user's own overrides, and what a failed job leaves."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from bisae.cli.command import command
from bisae.config.settings import read_settings
from bisae.config.train import TrainSettings
from tests.cli.test_sweep import SCRIPT
from tests.conftest import ROOT, run

Config = Callable[..., DictConfig]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize(
    ("overrides", "seeds"),
    [
        ((), (0, 0)),
        (("seed=3",), (3, 3)),
        (("seed=3", "sae=jump_relu", "data.seed=1"), (1, 3)),
        (("seed=3", "sae.seed=[0,1]"), (3, [0, 1])),
    ],
)
def test_one_seed_sets_the_others_unless_they_are_given(overrides: tuple[str, ...], seeds: tuple[int, object]) -> None:
    cfg = composed("train", *overrides)
    assert (cfg.data.seed, cfg.sae.seed) == seeds


@pytest.mark.parametrize("name", ["train", "analyze", "intervene", "convert", "evaluate", "rates"])
def test_one_root_moves_all_results_and_one_key_moves_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {Path(composed(name).runs).parts[0], composed(name, "runs=here").runs} == {"runs", "here"}
    assert Path(composed(name, "paths.root=/data").runs).parts[:3] == ("/", "data", "runs")
    monkeypatch.setenv("BISAE_ROOT", "/mine")
    everything = OmegaConf.to_yaml(composed(name), resolve=True)
    assert "/mine/runs" in everything and "./" not in everything


def test_private_overrides_are_read_where_there_are_any_and_what_is_typed_wins(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    search = f"hydra.searchpath=[file://{tmp_path}]"
    assert composed("train", search) == composed("train")
    header = "# @package _global_"  # as in files of other groups; not needed here
    for name, text in (("default", "save_every: 7\nlogger: {entity: us}"), ("analyze", f"{header}\nthreshold: 0.8")):
        (tmp_path / "local" / f"{name}.yaml").write_text(f"{text}\n")
    cfg = composed("train", search, "logger.entity=them")
    assert (cfg.save_every, cfg.logger.entity) == (7, "them")
    assert read_settings(TrainSettings, cfg) and composed("analyze", search).threshold == 0.8
    assert composed("plan", search, "checkpoint=0").save_every == 7


def test_the_tree_of_the_config_is_printed_resolved(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    silent = command(TrainSettings)(lambda settings, cfg: None)
    silent(config())
    assert capsys.readouterr().out == ""
    silent(config("print_config=true", "seed=5"))
    printed = capsys.readouterr().out
    assert re.search(r"── sae\n.*_target_: bisae\.sae\.TopK", printed) and printed.count("seed: 5") == 2
    assert "${" not in printed


@pytest.mark.slow
def test_a_failed_job_leaves_its_config_and_log_and_a_refused_one_only_its_message(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    for layer, left in ((1, 0), (2, 1)):
        failed = run([str(tmp_path / "script.py"), f"layer={layer}", "checkpoint=512"], tmp_path)
        assert failed.returncode == 1
        assert failed.stderr.count("config and log: runs/failed/") == left == len(list(tmp_path.glob("runs/failed/*")))
    (folder,) = tmp_path.glob("runs/failed/*")
    assert str(folder.relative_to(tmp_path)) in failed.stderr
    assert OmegaConf.load(folder / "config.yaml").checkpoint == 512
    first, *_, last = (folder / "log").read_text().strip().splitlines()
    assert "layer=2" in first and last == "RuntimeError: unforeseen"
