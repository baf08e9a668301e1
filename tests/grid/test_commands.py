"""The commands that a plan prints find the configs that the plan found."""

import shlex
import sys
from pathlib import Path

import pytest

from bisae.cli.plan import main

FIGURES = ["machine.lm_tflops=0.01", "machine.sae_tflops=0.01", "machine.disk_gbs=1", "machine.name='[bold] :100:'"]


@pytest.mark.parametrize("where", ["--config-dir", "hydra.searchpath"])
def test_the_commands_name_the_users_own_config_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    folder = tmp_path / "my conf"
    (folder / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults: [laptop_grid]\nlayer: [2]\nsize: {k: 3}\n"
    (folder / "experiment" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    option = "--config-dir=my conf" if where == "--config-dir" else f"hydra.searchpath=['file://{folder}']"
    arguments = ["experiment=mine", "model=embedded_d64", *FIGURES, "write=grid.sh"]
    monkeypatch.setattr(sys, "argv", ["plan", option, *arguments])
    main()
    printed = capsys.readouterr().out
    assert "On 1 x [bold] :100: (" in printed
    (line,) = [line for line in (tmp_path / "grid.sh").read_text().splitlines() if "train.py" in line]
    assert line.removesuffix(' "$@" || failed=1') in printed
    named = f"--config-dir={folder}" if where == "--config-dir" else option
    assert shlex.split(line)[3:5] == [named, "experiment=mine"] and "layer=[2]" in shlex.split(line)
