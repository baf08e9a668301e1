"""docs/tutorial.md and docs/cell.ipynb with fewer tokens, and the configs of the commands on pages for tasks."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from bisae.cli.analyze import analyze
from bisae.cli.convert import convert
from bisae.cli.intervene import intervene
from bisae.cli.train import train
from tests.conftest import ROOT, TINY, TINY_ANALYSIS, TINY_INTERVENTION, few_pairs

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"
FEWER = ["control.random=1", "translation=none"]
RUN: dict[str, tuple[str, Callable[[DictConfig], Any], list[str]]] = {
    "train.py": ("train", train, [key for key in TINY if not key.startswith("checkpoint")]),
    "analyze.py": ("analyze", analyze, TINY_ANALYSIS),
    "intervene.py": ("intervene", intervene, [*(key for key in TINY_INTERVENTION if "translation" not in key), *FEWER]),
    "-m bisae convert": ("convert", convert, ["activations.pass.device=cpu"]),
}


def blocks(page: Path, language: str | None = None) -> Iterator[tuple[str, str]]:
    for found in re.finditer(r"^```(bash|python)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        if language in (None, found[1]):
            yield found[1], found[2]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Entry points and overrides of the shell's lines, with the values of its variables."""
    known: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if variable := re.fullmatch(r"(\w+)=(\S+)", line):
            known[variable[1]] = variable[2]
        words = shlex.split(Template(line).safe_substitute(known), comments=True)
        if words[:1] == ["python"]:
            entry, rest = (" ".join(words[1:4]), words[4:]) if words[1] == "-m" else (words[1], words[2:])
            yield entry, rest


def composed(name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides)


def test_the_tutorial_and_the_notebook_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    pairs = few_pairs(tmp_path)
    known: dict[str, Any] = {}
    for language, text in blocks(DOCS / "tutorial.md"):
        if language == "python":
            exec(text, known)  # noqa: S102
        for entry, overrides in commands(text) if language == "bash" else ():
            name, run, tiny = RUN[entry]
            run(composed(name, [*tiny, *([f"alignment.pairs={pairs}"] if name == "analyze" else []), *overrides]))
    for made in ("report/index.html", "interventions/tables/interventions.md", "ours/embedded"):
        assert (tmp_path / made).exists()
    known = {}
    notebook = json.loads((DOCS / "cell.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)  # noqa: S102
    assert len(known["features"]) == known["sae"].latents == 64


@pytest.mark.parametrize(
    "page", ["training", "analysis", "intervention", "beyond", "own_model", "own_languages", "share"]
)
def test_every_command_of_a_page_has_a_config(page: str) -> None:
    for _, text in blocks(DOCS / f"{page}.md", "bash"):
        for entry, overrides in commands(text):
            name = entry.removesuffix(".py").split()[-1]
            overrides = [one.replace("model=mine", "model=hf") for one in overrides]
            if "-m" in overrides:  # the sweep's first job
                single = [one for one in overrides if one != "-m" and "(" not in one]  # no interval of a search
                overrides = [re.sub(r"^([\w.]+=[^\[{,]+),.*", r"\1", one) for one in single]
            assert composed(name, overrides)
