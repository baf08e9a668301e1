from pathlib import Path

import pytest

from tests.conftest import ROOT, run

CHECK = """
import runpy, sys
sys.argv = [{script!r}, "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code
slow = {{"torch", "transformers", "pandas", "datasets", "lightning", "wandb", "matplotlib"}} & set(sys.modules)
assert not slow, f"imported for --help: {{slow}}"
"""


@pytest.mark.parametrize("command", ["train", "analyze", "intervene"])
def test_help_imports_nothing_slow_and_shows_every_key(command: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("help")
    done = run(["-c", CHECK.format(script=str(ROOT / f"{command}.py"))], folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "experiment" in done.stdout and "seed:" in done.stdout
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("typed", "offered"), [("sae=topk", {"sae=topk", "sae=topk_candidates"}), ("data.val", {"data.validation_tokens="})]
)
def test_a_shell_completes_groups_and_keys(
    typed: str, offered: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", f"python train.py {typed}")
    monkeypatch.setenv("COMP_POINT", str(len(f"python train.py {typed}")))
    done = run([str(ROOT / "train.py"), "-sc", "query=bash"], tmp_path)
    assert done.returncode == 0 and offered <= set(done.stdout.split()), done.stdout + done.stderr
