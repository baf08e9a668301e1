"""What the real command shows of its progress, with a terminal and without."""

import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from bisae.cli.train import train
from bisae.runtime import progress
from tests.conftest import ROOT, TINY


@pytest.mark.slow
def test_in_a_terminal_of_80_columns_the_bar_is_one_line(tmp_path: Path) -> None:
    terminal, inside = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm", "TTY_COMPATIBLE": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "trainer.enable_progress_bar=true"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=inside, stderr=inside) as job:
        os.close(inside)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    os.close(terminal)
    assert job.returncode == 0
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", shown.decode())]
    bars = [line for line in lines if line.startswith("Epoch ")]
    assert bars and all(len(line) <= 80 and "…" not in line for line in bars)
    assert any("fvu" in line and "tokens/s" in line for line in bars), bars


def test_without_a_terminal_the_log_says_how_far_training_is(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO)
    train(config("data.epochs=1", "trainer.enable_progress_bar=true"))
    said = [line for line in caplog.messages if line.startswith("training: ")]
    assert re.fullmatch(r"training: 24 of 24 steps, fvu [\d.]+, tokens/s [\d,.]+, 0:00:00 left", said[-1])
    assert len(said) == 24


def test_a_job_that_shows_no_bar_says_nothing(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO)
    train(config("data.epochs=1"))
    assert not [line for line in caplog.messages if line.startswith("training: ")]
