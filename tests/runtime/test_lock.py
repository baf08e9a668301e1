import socket
import subprocess
import sys
import time
from errno import ENOSYS
from pathlib import Path

import filelock._unix
import pytest

import bisae.runtime.lock
from bisae.runtime.lock import sole_writer

# Takes the lock of the working directory, on a file system without locks if the argument says so, and is killed.
HOLDER = """
import errno, os, sys
import filelock._unix
from pathlib import Path
import bisae.runtime.lock

def without(_):
    raise OSError(errno.ENOSYS, "no locks here")

if sys.argv[1] == "without":
    filelock._unix.lock_fd_nonblocking = without
    bisae.runtime.lock.LEASE = 1.0
with bisae.runtime.lock.sole_writer(Path()):
    os.kill(os.getpid(), 9)
"""


def killed_holder(folder: Path, locks: str) -> None:
    killed = subprocess.run([sys.executable, "-c", HOLDER, locks], cwd=folder)
    assert killed.returncode == -9


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed_holder(tmp_path, "with")
    with caplog.at_level("INFO"), sole_writer(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not caplog.messages


def test_without_locks_on_the_file_system_that_of_a_dead_host_is_free_after_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    killed_holder(tmp_path, "without")
    marker = tmp_path / ".lock.lease"
    assert socket.gethostname() in marker.read_text()
    marker.write_text(marker.read_text().replace(socket.gethostname(), "another"))

    def without(_: int) -> bool:
        raise OSError(ENOSYS, "no locks here")

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", without)
    monkeypatch.setattr(bisae.runtime.lock, "LEASE", 1.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the time of day does not matter
    started = time.monotonic()
    with caplog.at_level("INFO"), sole_writer(tmp_path):
        assert 1.0 <= time.monotonic() - started < 30.0
    assert "waits for the one that writes" in caplog.text
