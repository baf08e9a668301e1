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
