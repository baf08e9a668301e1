import json
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from bisae.sae import TopK
from bisae.sae.kernels.paper import memory
from tests.conftest import ROOT, run

# What PyTorch itself needs, beside the three packages that a bare machine has, and the project, from its checkout.
THERE = {
    "torch",
    "torchgen",
    "functorch",
    "numpy",
    "triton",
    "typing_extensions",
    "filelock",
    "fsspec",
    "sympy",
    "mpmath",
}
THERE |= {"networkx", "jinja2", "markupsafe", "setuptools", "pkg_resources", "bisae"}
BARE = """
import importlib.machinery
found = importlib.machinery.PathFinder.find_spec
hidden = set({hidden!r})
importlib.machinery.PathFinder.find_spec = (
    lambda name, path=None, target=None: None if name.split(".")[0] in hidden else found(name, path, target)
)
"""
SCRIPT = str(ROOT / "benchmarks/device.py")


@pytest.mark.slow
def test_every_stage_runs_where_only_pytorch_triton_and_numpy_are(tmp_path: Path) -> None:
    hidden = sorted(set(packages_distributions()) - THERE)
    assert {"hydra", "lightning", "jaxtyping", "omegaconf", "safetensors", "transformers"} <= set(hidden)
    (tmp_path / "sitecustomize.py").write_text(BARE.format(hidden=hidden))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    asked = [sys.executable, SCRIPT, "--smoke", "--minutes", "30", "--json", "found.json"]
    done = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"jaxtyping", "omegaconf", "safetensors"} <= set(found["stand_ins"])
    stages = found["stages"]
    assert {stage["state"] for stage in stages.values()} == {"done"} and all(stage["rows"] for stage in stages.values())
    assert len(stages["gates"]["rows"]) >= 3 and all(row["passes"] for row in stages["gates"]["rows"])
    assert all(row["bit_equal"] and row["killed_by"] == 9 for row in stages["resume"]["rows"])
    assert all(row["bit_equal"] for row in stages["ranks"]["rows"])
    assert {row["peer"] for row in stages["peers"]["rows"]} == {"sparsify", "sae_lens", "dense", "study"}
    assert all(row["step_seconds"] > 0 for stage in ("steps", "peers") for row in stages[stage]["rows"])
    assert "quickest" not in found and "bars" not in found


def test_a_stage_that_hangs_is_ended_and_named(tmp_path: Path) -> None:
    done = run([SCRIPT, "--smoke", "--minutes", "0.09", "--stages", "gates", "steps", "--json", "found.json"], tmp_path)
    assert done.returncode == 1 and "gates: out of time" in done.stdout
    stages = json.loads((tmp_path / "found.json").read_text())["stages"]
    assert {stage["state"] for stage in stages.values()} == {"out of time"}


def test_on_paper_one_member_of_the_study_fits_its_bar_with_kernels_only() -> None:
    sae = TopK(64, 512, k=4)
    of_weights = dict(memory(100, 512, 64, 4))["weights and two moments"]
    assert of_weights == 3 * 4 * (sae.W_enc.numel() + sae.W_dec.numel())
    needed = {
        kernels: sum(size for _, size in memory(32768, 32768, 2048, 32, kernels=kernels)) for kernels in (False, True)
    }
    assert needed[True] <= 8e9 < needed[False]


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import on_device.summary

    yield on_device.summary
    for name in [name for name in sys.modules if name.startswith("on_device")]:
        del sys.modules[name]


def test_only_what_passed_its_gates_is_the_quickest(summary: object) -> None:
    gate = {"precision": "bf16-mixed", "bit_equal": True}
    shape = {"d_model": 2048, "latents": 32768, "batch": 32768, "k": 32, "precision": "bf16-mixed"}
    content = {
        "smoke": False,
        "stages": {
            "gates": {"rows": [{"backend": b, "passes": b != "wrong", **gate} for b in ("plain", "wrong", "late")]},
            "resume": {"rows": [{"backend": "late", **gate, "bit_equal": False}]},
            "steps": {
                "rows": [
                    {"backend": backend, "ratio": ratio, "step_seconds": ratio, "peak_bytes": 9e9, **shape}
                    for backend, ratio in (("plain", 5.0), ("wrong", 2.0), ("late", 1.9), ("never", 1.0))
                ]
            },
            "peers": {
                "rows": [{"peer": "sparsify", "step_seconds": 20.0, **shape}, {"peer": "sae_lens", "error": "!"}]
            },
        },
    }
    (best,) = summary.quickest(content)  # type: ignore[attr-defined]
    assert (best["backend"], best["ratio"]) == ("plain", 5.0)
    found = {what: value for what, value, _, _ in summary.bars(content)}  # type: ignore[attr-defined]
    assert found["step in bf16 products, d 2048, batch 32 768"] == 5.0 and found["sparsify's step in ours"] == 4.0
    assert found["SAELens' step in ours"] is found["selection, ms"] is found["caching in forward passes"] is None
    assert found["memory of one member, GB"] == 9.0 and found["reruns and resumes equal bit for bit, share"] == 0.75
