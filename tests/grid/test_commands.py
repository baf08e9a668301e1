"""The commands that a plan prints find the configs that the plan found."""

import shlex
import sys
from pathlib import Path

import pytest

from bisae.cli.plan import main
from bisae.runtime.errors import Refused

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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoint=[0,512]"], r"checkpoint=\[0, 512\]: must be one step.* type '\+grid=\{embedded:\[0,512\]\}'"),
        (["checkpoint=last"], r"checkpoint=last: must be one step, a number or `final`"),
        (["checkpoint=true"], r"checkpoint=True: must be one step"),
        (["experiment=laptop_grid", "checkpoint=512"], r"checkpoint=512: the grid gives the steps: .*'grid=\{"),
    ],
)
def test_steps_given_as_a_checkpoint_are_refused_with_where_a_grid_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # else Hydra prints what a command does not catch, and exits
    monkeypatch.setattr(sys, "argv", ["plan", *overrides, *FIGURES])
    with pytest.raises((Refused, SystemExit), match=message):
        main()


def test_the_grid_that_the_refusal_of_checkpoint_names_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plan", "+grid={embedded:[0,512]}", *FIGURES, "write=grid.sh"])
    main()
    assert "checkpoint=0,512" in (tmp_path / "grid.sh").read_text()
