"""Triton kernels, each way in a process of its own: whether Triton interprets is settled when it is first imported."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bisae.runtime.errors import Refused
from bisae.sae.architectures.triton_topk import TritonTopK
from tests.conftest import ROOT, run

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton not installed")


@needs_triton
@pytest.mark.slow
def test_in_tritons_interpreter_the_kernels_are_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    cases = ["tests/sae/triton_cases.py", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/cases"]
    done = run(["-m", "pytest", *cases], ROOT)
    assert done.returncode == 0, done.stdout


@needs_triton
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = run(["-m", "tests.sae.triton_compiled"], ROOT)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("*.cubin"))) == 8


@pytest.mark.parametrize(("installed", "remedy"), [(True, "needs a CUDA GPU"), (False, "needs the package triton")])
def test_without_gpu_or_triton_the_kernels_are_refused(
    installed: bool, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *p: (installed or None) if n == "triton" else find(n, *p)
    )
    with pytest.raises(Refused, match=f"^sae=topk_triton: {remedy}.*sae=topk"):
        TritonTopK(8, 32, 4)
