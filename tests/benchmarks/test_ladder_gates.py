import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, run


@pytest.mark.slow
def test_the_gates_of_a_ladder_agree_with_its_manifest_and_are_nothing_against_itself(tmp_path: Path) -> None:
    asked = [str(ROOT / "benchmarks/ladder_gates.py"), *["embedded_d64:512"] * 3, "embedded_d64:0"]
    done = run([*asked, "--json", "found.json", "--smoke"], tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["rows"]
    rows = {row["what"]: row for row in found if row.get("control_lm") == "embedded_d64:512"}
    other = {row["what"]: row for row in found if row.get("control_lm") == "embedded_d64:0"}
    seeds = {row["what"].removesuffix(", 2 LMs"): row for row in found if "lm" not in row}
    assert seeds.keys() == rows.keys() == other.keys() and other["below en"]["value"] < 0
    for name, row in seeds.items():
        values = [rows[name]["value"], other[name]["value"]]
        assert row["value"] == pytest.approx(sum(values) / 2)
        assert row["one_more_low"] <= row["low"] <= min(values) <= max(values) <= row["high"] <= row["one_more_high"]
    manifest = json.loads((ROOT / "bisae/embedded/lm/embedded_d64/ladder.json").read_text())["checkpoints"]["512"]
    for language, perplexity in manifest["perplexity"].items():
        below = rows[f"below {language}"]
        assert below["value"] == below["low"] == below["high"] == 0
        assert below["perplexity_LM"] == below["perplexity_control"] == pytest.approx(perplexity, rel=1e-2)
    layers = [name for name in rows if re.fullmatch(r"retrieval centred \d", name)]
    assert len(layers) == 5 and all(rows[name]["value"] == rows[name]["control"] for name in layers)
    assert min(rows[name]["behind_low"] for name in layers) <= 0 == min(abs(rows[n]["behind_high"]) for n in layers)
