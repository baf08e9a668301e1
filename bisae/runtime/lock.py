"""One process at a time writes in a folder; the others wait, and say so.

The system frees the lock of a process that died. On another host the network file system does, after some time (NFS:
90 s). A file system without such locks gets a marker that its holder renews: unrenewed for `LEASE` seconds of the
waiting process's clock, which no change of the time of day moves, it counts as left behind.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from errno import ENOSYS
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout

logger = logging.getLogger(__name__)

LOCK = ".lock"
LEASE = 300.0  # seconds
SECONDS_BETWEEN_MESSAGES = 60.0


def acquired(folder: Path, timeout: float) -> AbstractContextManager[object]:
    """Lock the existing `folder`; `with` releases it. Raises Timeout after `timeout` seconds."""
    try:
        return FileLock(folder / LOCK, fallback_to_soft=False).acquire(timeout)
    except OSError as error:
        if error.errno != ENOSYS:
            raise
    return SoftFileLease(folder / f"{LOCK}.lease", lease_duration=LEASE).acquire(timeout)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, waiting as long as another process does; it is free when that process is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    timeout = 0.0  # so that the first message comes at once
    while True:
        try:
            lock = acquired(folder, timeout)
            break
        except Timeout:
            logger.info("process %d waits for the one that writes %s", os.getpid(), folder)
            timeout = SECONDS_BETWEEN_MESSAGES
    with lock:
        yield
