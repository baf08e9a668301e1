import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, run


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="pins its processes to cores")
@pytest.mark.slow
def test_the_benchmark_passes_its_gates_and_writes_its_rows(tmp_path: Path) -> None:
    few = ["--shapes", "smoke", "--variants", "autograd", "default", "--rounds", "1", "--pairs", "1"]
    done = run([str(ROOT / "benchmarks/sae_step.py"), *few, "--json", "found.json"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert max(error for name, error in found["errors"].items() if "64" in name) < 1e-12
    assert [row["variant"] for row in found["rows"]] == ["autograd", "default"]
    for row in found["rows"]:
        assert row["ratio"] == pytest.approx(row["step_seconds"] / row["product_seconds"]) and row["ratio"] > 0.3
