"""Training takes the backend that benchmarks/device.py found to be the quickest on the device, and no other."""

import json
from pathlib import Path

import pytest
import torch

from bisae.sae.kernels import choice
from bisae.sae.kernels.candidates import pays

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def _measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(d_model: int, batch: int, precision: str, backend: str) -> dict[str, object]:
        sizes = {"d_model": d_model, "latents": 32768, "batch": batch, "k": 32}
        return {**sizes, "precision": precision, "backend": backend, "ratio": 2.0}

    rows = [row(2048, 32768, "bf16-mixed", "triton"), row(512, 32768, "bf16-mixed", "torch")]
    rows += [row(2048, 8192, "bf16-mixed", "torch"), row(2048, 32768, "32-true", "candidates")]
    (tmp_path / "measured.json").write_text(json.dumps({"nvidia_test_80gb": rows}))
    monkeypatch.setattr(choice, "MEASURED", tmp_path / "measured.json")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Test 80GB")


def test_the_quickest_at_the_nearest_size_is_taken() -> None:
    assert choice.quickest(GPU, 32768, 2048, "bf16-mixed", 32768) == "triton"
    assert choice.quickest(GPU, 32768, 3072, "bf16-mixed", 20000) == "triton"
    assert choice.quickest(GPU, 32768, 2048, "bf16-mixed", 4096) == "torch"
    assert choice.quickest(GPU, 16384, 640, "bf16-mixed", 32768) == "torch"
    assert choice.quickest(GPU, 32768, 1024, "32-true", 512) == "candidates" and pays(GPU, 512, 32768, 2048, 32)


@pytest.mark.parametrize(("capability", "quick"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_on_a_gpu_that_was_not_measured_sizes_and_matrix_units_decide_about_candidates(
    capability: tuple[int, int], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Other")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert pays(GPU, 32768, 32768, 2048, 32) == quick
    assert not pays(GPU, 512, 32768, 2048, 32) and not pays(GPU, 32768, 4096, 2048, 32)


def test_what_was_not_measured_computes_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choice.quickest(torch.device("cpu"), 32768, 2048, "bf16-mixed", 32768) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Other")
    assert choice.quickest(GPU, 32768, 2048, "bf16-mixed", 32768) is None and not pays(GPU, 512, 32768, 2048, 32)


def test_the_shipped_table_is_empty_or_names_backends_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(choice.__file__).parent / "measured.json"
    found = json.loads(shipped.read_text()) if shipped.exists() else {}
    assert {row["backend"] for rows in found.values() for row in rows} <= {"torch", "candidates", "triton"}
