"""An installed bisae, and checkouts beside each other: each reads its own configs and code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow
SMALL = [*(override for override in TINY if override != "data.tokens=6000"), "data.tokens=2000"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bisae as its wheel installs it, built from a copy of the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("bisae", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, timeout=250)
    return target


def called(command: list[str], where: Path, code: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(code)}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=250)


def named(conf: Path, name: str) -> None:
    """Let the configs of a folder give their SAEs another name."""
    file = conf / "sae" / "topk.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("name: topk", f"name: {name}"), encoding="utf-8")


@pytest.mark.parametrize("command", ["bisae", "python -m bisae"])
def test_an_installed_bisae_trains_from_any_folder_with_its_own_configs(
    installed: Path, tmp_path: Path, command: str
) -> None:
    start = [str(installed / "bin" / "bisae")] if command == "bisae" else [sys.executable, "-m", "bisae"]
    conf = installed / "bisae" / "conf"
    shipped = {file.relative_to(ROOT / "conf") for file in (ROOT / "conf").rglob("*.yaml")}
    assert {file.relative_to(conf) for file in conf.rglob("*.yaml")} == {f for f in shipped if f.parts[0] != "local"}
    if "name: installed" not in (conf / "sae" / "topk.yaml").read_text(encoding="utf-8"):
        named(conf, "installed")
    done = called([*start, "train", *SMALL], tmp_path, installed)
    assert done.returncode == 0, done.stderr[-2000:]
    (cell,) = tmp_path.glob("runs/embedded/step0000512/layer02/*/cell.json")
    assert cell.parent.name.startswith("installed-")
    refused = called([*start, "train", "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=0"], tmp_path, installed)
    assert refused.stderr == "error: hydra.sweeper.n_trials=0: must be a whole number, at least 1\n", refused.stderr[
        -2000:
    ]
    listed = called([*start, "nothing"], tmp_path, installed)
    assert listed.returncode == 1 and "intervene" in listed.stderr


def test_a_copied_checkout_reads_its_own_configs_and_code(tmp_path: Path) -> None:
    for copy in ("first", "second"):
        for name in ("bisae", "conf"):
            shutil.copytree(ROOT / name, tmp_path / copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "train.py", tmp_path / copy)
        named(tmp_path / copy / "conf", copy)
    for copy, other in (("first", "second"), ("second", "first")):
        work = tmp_path / f"work-{copy}"
        work.mkdir()
        # The other one is on the path, as an editable install of it would be.
        done = called([sys.executable, str(tmp_path / copy / "train.py"), *SMALL], work, tmp_path / other)
        assert done.returncode == 0, done.stderr[-2000:]
        (cell,) = work.glob("runs/embedded/step0000512/layer02/*/cell.json")
        assert cell.parent.name.startswith(f"{copy}-")
