"""The disk budget of a folder of caches, and the eviction of caches."""

import logging
import os
import re
import shutil
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import Timeout

from bisae.activations.manifest import NAME as MANIFEST
from bisae.runtime.atomic import sync
from bisae.runtime.errors import Refused
from bisae.runtime.lock import LOCK, acquired

logger = logging.getLogger(__name__)

GIB = 2**30
MARGIN_BYTES = GIB // 4  # left free on the file system for checkpoints and logs
USED = "used"
CACHE_NAME = re.compile("[0-9a-f]{16}")


def note_use(folder: Path) -> None:
    """Note that `folder` is used now. On a read-only disk this does nothing: nothing is evicted there."""
    with suppress(OSError):
        (folder / USED).touch()


def make_room(root: Path, keep: Path, needed: int, disk_gib: int | float, evict: bool, remedy: str) -> None:
    """Make sure that `needed` more bytes fit under `root`; with `evict`, delete the least recently used caches.

    Bytes that other running writers are going to write are not known here.

    Args:
        keep: Folder of a cache that is not deleted.
        remedy: Advice for the message.

    Raises:
        Refused: The bytes do not fit in `disk_gib` or on the file system. Then nothing has been deleted.
    """
    used = _folder_bytes(root)
    free = shutil.disk_usage(root).free
    excess = max(used + needed - int(disk_gib * GIB), needed + MARGIN_BYTES - free)
    if excess <= 0 or (evict and _evict(root, keep, excess)):
        return
    sizes = f"{_gib(needed)} needed, {_gib(used)} used by {root}, budget {disk_gib:g} GiB, {_gib(free)} free on disk"
    raise Refused("disk_gib", disk_gib, f"{sizes}; raise it or {remedy}")


def _evict(root: Path, keep: Path, excess: int) -> bool:
    """Delete caches, least recently used first, until `excess` bytes are free; delete none if that cannot be."""
    others = [folder for folder in root.iterdir() if CACHE_NAME.fullmatch(folder.name) and folder != keep]
    with ExitStack() as locks:
        victims: list[Path] = []
        for folder in sorted(others, key=_last_use):
            if excess <= 0:
                break
            size = _folder_bytes(folder)
            if size == 0:
                continue
            with suppress(Timeout, PermissionError):  # a cache being written, or not ours, stays
                locks.enter_context(acquired(folder, 0.0))
                victims.append(folder)
                excess -= size
        if excess > 0:
            return False
        for folder in victims:
            logger.info("evicting the activation cache %s", folder)
            _delete(folder)
    return True


def _delete(folder: Path) -> None:
    """Empty a locked cache, manifest first, so that a reader that starts now sees no cache rather than half of one.

    The folder and its lock file stay: other processes may be waiting on exactly this lock.
    """
    (folder / MANIFEST).unlink(missing_ok=True)
    sync(folder)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif not path.name.startswith(LOCK):
            path.unlink(missing_ok=True)


def _last_use(folder: Path) -> float:
    try:
        return (folder / USED).stat().st_mtime
    except FileNotFoundError:
        return folder.stat().st_mtime


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # renamed or evicted by another process meanwhile
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"
