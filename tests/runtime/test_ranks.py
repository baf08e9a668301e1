import os
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from bisae.runtime.ranks import leave, tell_torchrun


def test_torchruns_report_ends_with_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    tell_torchrun("error: layer=9: there is none")
    failure = ProcessFailure(local_rank=0, pid=os.getpid(), exitcode=1, error_file=str(tmp_path / "error.json"))
    *_, said, _ = str(ChildFailedError("train.py", {0: failure})).strip().splitlines()
    assert said.endswith(": error: layer=9: there is none")


def test_what_is_left_for_a_sweep_that_has_ended_is_left_out(tmp_path: Path) -> None:
    leave(tmp_path, "error", "is full")
    leave(tmp_path / "gone", "error", "is full")
    leave(None, "error", "is full")
    assert [file.read_text() for file in tmp_path.rglob("*")] == ["is full"]
