import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, run


@pytest.mark.slow
def test_the_results_are_shown_without_measuring(tmp_path: Path) -> None:
    done = run([str(ROOT / "benchmarks/planted.py"), "nowhere", "--show"], tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((ROOT / "benchmarks/results/planted.json").read_text())
    (base,) = (row for row in results["base"]["rows"] if row["level"] == "oracle" and row["rule"] == "monosemantic")
    shown = next(line for line in done.stdout.splitlines() if line.startswith("| bilingual, monosemantic |"))
    precision, recall = base["right"] / base["found"], base["right"] / base["true"]
    assert shown.split("|")[2].strip() == f"{precision:.2f} / {recall:.2f}"
    curve = next(line for line in done.stdout.splitlines() if line.startswith("| oracle English contexts 0.9 |"))
    assert 0 < float(curve.split("|")[2].split("/")[1]) <= float(curve.split("|")[4].split("/")[0]) <= 1
    assert not list(tmp_path.iterdir())
